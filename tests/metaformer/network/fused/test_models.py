"""Whole models and blocks with kernels, beside the same with plain operations, forward and backward.

B batch, C channels, H height, W width.
"""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tests.metaformer.network.fused.machine import DEVICE, INTERPRETED, skip_unless_kernels_run

skip_unless_kernels_run()

from metaformer import Architecture, MetaFormer, build, zoo  # noqa: E402
from metaformer.network import fused  # noqa: E402
from metaformer.network.layers import make_activation, make_norm  # noqa: E402
from metaformer.network.mixers import PoolMixer  # noqa: E402
from metaformer.specs import AttentionSpec, Norm, PoolSpec, SepConvSpec, Stage  # noqa: E402

GPU = pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a CUDA device")
PRECISIONS = ["float32", "bfloat16"]


@pytest.fixture(autouse=True)
def _no_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions in full float32, so that it does not hide a kernel's error."""
    if DEVICE.type == "cuda":
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def stage(**fields: object) -> Stage:
    return Stage.model_validate({"depth": 1, "width": 24, "layer_scale": 0.5, "mlp": {"ratio": 2}, **fields})


# All that has a kernel, in few layers.
SMALL = Architecture(
    resolution=32,
    stages=(
        stage(mixer=PoolSpec()),
        stage(
            mixer=SepConvSpec(size=3),
            width=40,
            downsample={},
            norm=Norm(kind="layer_norm"),
            layer_scale=None,
            res_scale=0.75,
        ),
        stage(mixer=PoolSpec(), width=16, downsample={}, norm=Norm(kind="layer_norm"), mlp=None),
        stage(mixer=AttentionSpec(head_size=8), width=16, mlp={"ratio": 2, "activation": "star_relu"}),
    ),
)


def with_kernels() -> AbstractContextManager[None]:
    """As a GPU would without being asked; on CPU they must be."""
    return fused.fused_kernels(True) if INTERPRETED else nullcontext()


def autocast(precision: str) -> torch.autocast:
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=precision == "bfloat16")


def model_of(arch: Architecture) -> MetaFormer:
    """With weights in which no factor is 0, 1 or negligible."""
    torch.manual_seed(0)
    model = build(arch)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 and "fc" not in name:
                parameter.add_(torch.randn(parameter.shape) * 0.2)
            if parameter.dim() == 1 and name.endswith("scale.scale"):
                parameter.abs_().add_(0.2)
    return model.to(DEVICE)


def images(arch: Architecture, *, batch: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    numbers = torch.randn(batch, 3, arch.resolution, arch.resolution, generator=torch.Generator().manual_seed(1))
    return numbers.to(device=DEVICE, dtype=dtype)


def gradients(model: nn.Module, x_BCHW: Tensor, precision: str) -> tuple[Tensor, ...]:
    """Logits, then the gradients of all parameters."""
    with autocast(precision):
        logits = model(x_BCHW)
        weights = torch.linspace(-1, 1, logits.numel(), device=DEVICE, dtype=torch.float64).view_as(logits)
        loss = (logits.to(torch.float64) * weights).sum()
    return logits.detach(), *torch.autograd.grad(loss, list(model.parameters()))


def by_name(model: MetaFormer, tensors: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Logits and gradients in float64; those of one number together, since one alone may all but cancel."""
    names = ["logits", *(name for name, _ in model.named_parameters())]
    named = {name: tensor.double() for name, tensor in zip(names, tensors, strict=True)}
    single = [name for name, tensor in named.items() if tensor.numel() == 1]
    together = torch.cat([named.pop(name) for name in single]) if single else torch.ones(1, device=DEVICE)
    return named | {"single": together}


def check_model(model: MetaFormer, precision: str, *, batch: int = 2) -> None:
    """With kernels a model is about as near to its float64 self as with plain operations."""
    x_BCHW = images(model.arch, batch=batch)
    with with_kernels():
        ours = gradients(model, x_BCHW, precision)
    with fused.fused_kernels(False):
        plain = gradients(model, x_BCHW, precision)
        exact = gradients(model.double(), x_BCHW.double(), "float32")
    model.float()
    assert [tensor.dtype for tensor in ours] == [tensor.dtype for tensor in plain]
    rounding = 2**-4 if INTERPRETED else 2**-8  # the interpreter cuts bfloat16 off instead of rounding
    floor = 1e-5 if precision == "float32" else rounding
    ours_of, plain_of = by_name(model, ours), by_name(model, plain)
    for name, expected in by_name(model, exact).items():
        length = float(expected.norm())
        if length > 1e-9:  # otherwise 0 but for rounding: the bias of a norm in front of pooling
            distances = [float((tensor - expected).norm()) / length for tensor in (ours_of[name], plain_of[name])]
            assert distances[0] < 3 * distances[1] + floor, (name, distances)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_small_model_of_all_parts_is_itself(precision: str) -> None:
    check_model(model_of(SMALL), precision)


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["poolformer_s12", "caformer_s18", "convformer_s18", "metaformer_ppaa_s12_224"])
def test_a_published_model_is_itself(name: str, precision: str) -> None:
    arch = zoo.get(name)
    arch = Architecture.model_validate(arch.model_dump() | {"resolution": 96, "drop_path": 0.0})
    check_model(model_of(arch), precision, batch=4)


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize("size", [3, 5])
def test_pooling_without_kernels_has_the_gradient_of_a_cpu(size: int) -> None:
    """PyTorch's own, of a channels-last map on CUDA, is wrong in some versions (pytorch/pytorch issue 188344)."""
    pool = PoolMixer(24, PoolSpec(size=size), side=9)
    found = []
    for device in (DEVICE, torch.device("cpu")):
        draw = torch.Generator().manual_seed(0)
        x_BCHW, grad_BCHW = (
            torch.randn(2, 24, 9, 7, generator=draw).to(device, memory_format=torch.channels_last) for _ in range(2)
        )
        x_BCHW.requires_grad_()
        with fused.fused_kernels(False):
            found.append(torch.autograd.grad(pool(x_BCHW), x_BCHW, grad_BCHW)[0].cpu())
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("checkpointing", [True] if INTERPRETED else [False, True])
def test_drop_path_drops_the_same_images(checkpointing: bool) -> None:
    """From the same seed; also where blocks are computed again in the backward pass."""
    arch = Architecture.model_validate(SMALL.model_dump() | {"drop_path": 0.6})
    model = model_of(arch)
    for module in model.stages:
        module.grad_checkpointing = checkpointing
    x_BCHW = images(arch, batch=3)
    torch.manual_seed(3)
    with with_kernels():
        ours = gradients(model, x_BCHW, "float32")
    torch.manual_seed(3)
    with fused.fused_kernels(False):
        plain = gradients(model, x_BCHW, "float32")
    for actual, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()) + 1e-5)


@torch.inference_mode()
def test_inference_keeps_dtypes_and_numbers() -> None:
    model, x_BCHW = model_of(SMALL).eval(), images(SMALL)
    for precision in PRECISIONS:
        with autocast(precision):
            with with_kernels():
                ours = model.features(x_BCHW)
            with fused.fused_kernels(False):
                plain = model.features(x_BCHW)
        for actual, expected in zip(ours, plain, strict=True):
            assert actual.dtype == expected.dtype
            assert actual.is_contiguous(memory_format=torch.channels_last)
            near = 1e-4 if precision == "float32" else 0.1
            torch.testing.assert_close(actual, expected, rtol=near, atol=near)


@pytest.mark.parametrize("kind", ["mln", "layer_norm"])
def test_a_norm_in_front_of_a_product_rounds_as_autocast_would(kind: str) -> None:
    """The numbers of a norm in float32 that is then rounded, to the last bit, which the interpreter cuts off."""
    spec = Norm.model_validate({"kind": kind})
    x_BCHW = torch.randn(2, 24, 6, 5, device=DEVICE)
    with with_kernels(), autocast("bfloat16"):
        rounded_BCHW = make_norm(spec, 24, before_product=True).to(DEVICE)(x_BCHW)
        whole_BCHW = make_norm(spec, 24).to(DEVICE)(x_BCHW)
    assert (rounded_BCHW.dtype, whole_BCHW.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(rounded_BCHW, whole_BCHW.bfloat16(), rtol=2**-7, atol=0)


def seen_by(use: Callable[[Tensor], object]) -> list[bool]:
    """Whether a kernel would be used, asked from within `use` of a function."""
    answers: list[bool] = []

    def ask(x: Tensor) -> Tensor:
        answers.append(fused.usable(x))
        return x * 2

    with with_kernels():
        use(ask)
    return answers


def test_who_looks_at_the_operations_sees_the_plain_ones() -> None:
    x = torch.randn(2, 3, device=DEVICE)
    assert seen_by(lambda ask: ask(x)) == [True]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=FutureWarning)  # newer versions of torch deprecate tracing
        warnings.simplefilter("ignore", category=DeprecationWarning)
        assert not any(seen_by(lambda ask: torch.jit.trace(ask, x, check_trace=False)))
    assert seen_by(lambda ask: torch.func.vmap(ask)(x)) == [False]
    assert seen_by(lambda ask: torch.func.grad(lambda y: ask(y).sum())(x)) == [False]
    assert seen_by(lambda ask: ask(x.to("meta"))) == [False] or INTERPRETED
    assert seen_by(lambda ask: ask(x.double())) == [False]
    assert seen_by(lambda ask: ask(x[:0])) == [False]

    def counted(ask: Callable[[Tensor], Tensor]) -> None:
        with FlopCounterMode(display=False):
            ask(x)

    assert seen_by(counted) == [False]
    with fused.fused_kernels(False):
        assert not fused.usable(x)


def test_compiled_and_counted_models_are_the_plain_ones() -> None:
    model, x_BCHW = model_of(SMALL), images(SMALL)

    def count() -> int:
        with FlopCounterMode(display=False) as counter:
            model(x_BCHW).sum().backward()
        return counter.get_total_flops()

    with fused.fused_kernels(False):
        plain_flops = count()
    with with_kernels():
        assert count() == plain_flops
        star, norm = make_activation("star_relu").to(DEVICE), make_norm(Norm(kind="mln"), 3).to(DEVICE)
        compiled = torch.compile(lambda x: star(norm(x)), backend="eager")
        assert torch.isfinite(compiled(x_BCHW)).all()


@GPU
@pytest.mark.gpu
def test_a_step_can_be_captured_in_a_cuda_graph() -> None:
    """Nothing waits for the device, and launches go to the current stream."""
    model, static_BCHW = model_of(SMALL), images(SMALL, batch=4)
    labels_B = torch.arange(4, device=DEVICE)

    def step() -> Tensor:
        for parameter in model.parameters():
            parameter.grad = None
        with autocast("bfloat16"):
            loss = F.cross_entropy(model(static_BCHW).float(), labels_B)
        loss.backward()
        return loss.detach()

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()
    captured = [parameter.grad for parameter in model.parameters()]
    static_BCHW.copy_(images(SMALL, batch=4).flip(0))
    graph.replay()
    replayed = [loss.clone(), *(grad.clone() for grad in captured if grad is not None)]
    eager = [step(), *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)]
    for actual, expected in zip(replayed, eager, strict=True):
        torch.testing.assert_close(actual, expected, rtol=5e-2, atol=1e-2 * float(expected.abs().max()) + 1e-6)
