"""StarReLU, s relu(x)^2 + b, over `values` numbers in any order."""

import triton
import triton.language as tl


@triton.jit
def star_relu_kernel(x_ptr, scale_ptr, bias_ptr, y_ptr, values, BLOCK: tl.constexpr, STEPS: tl.constexpr):
    """s relu(x)^2 + b."""
    scale = tl.load(scale_ptr).to(tl.float32)
    bias = tl.load(bias_ptr).to(tl.float32)
    first = tl.program_id(0).to(tl.int64) * (BLOCK * STEPS)
    for step in range(STEPS):
        offsets = first + step * BLOCK + tl.arange(0, BLOCK)
        there = offsets < values
        x = tl.load(x_ptr + offsets, mask=there, other=0.0).to(tl.float32)
        positive = tl.where(x < 0.0, 0.0, x)
        y = scale * positive * positive + bias
        tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), mask=there)


@triton.jit
def star_relu_backward_kernel(
    x_ptr, grad_ptr, scale_ptr, grad_x_ptr, sums_ptr, values, BLOCK: tl.constexpr, STEPS: tl.constexpr
):
    """2 s g relu(x), and the program's sums of g relu(x)^2 and g."""
    scale = tl.load(scale_ptr).to(tl.float32)
    program = tl.program_id(0)
    first = program.to(tl.int64) * (BLOCK * STEPS)
    products = tl.zeros([BLOCK], dtype=tl.float32)
    grads = tl.zeros([BLOCK], dtype=tl.float32)
    for step in range(STEPS):
        offsets = first + step * BLOCK + tl.arange(0, BLOCK)
        there = offsets < values
        x = tl.load(x_ptr + offsets, mask=there, other=0.0).to(tl.float32)
        grad = tl.load(grad_ptr + offsets, mask=there, other=0.0).to(tl.float32)
        positive = tl.where(x < 0.0, 0.0, x)
        product = grad * positive
        products += product * positive
        grads += grad
        tl.store(grad_x_ptr + offsets, (2.0 * scale * product).to(grad_x_ptr.dtype.element_ty), mask=there)
    tl.store(sums_ptr + program * 2, tl.sum(products, axis=0))
    tl.store(sums_ptr + program * 2 + 1, tl.sum(grads, axis=0))
