"""What is slow in PyTorch's eager mode on an NVIDIA GPU, as Triton kernels: norms, the pooling half, sums, StarReLU.

The layers compute the plain way, in PyTorch's own operations, and ask `usable` whether a kernel may do it instead. It
may where a map lies on a GPU for which Triton compiles, and nobody looks at the operations: `torch.compile` (which
fuses the plain ones itself), export, tracing, FLOP counters and `torch.func` see the plain ones. Module and parameter
names are the same either way, and so are the numbers, to rounding. `fused_kernels(False)` keeps to the plain ones.

A kernel is a function in `kernels/`; beside that folder is one file for each, with its autograd function. The sums of a
backward pass are written in parts and added by PyTorch, without atomics, so that the same input gives the same bits.
tests/metaformer/network/fused compares each with the plain operations: on a GPU if there is one, otherwise on CPU in
Triton's interpreter.
"""

from metaformer.network.fused.switch import fused_kernels, usable

__all__ = ["fused_kernels", "usable"]
