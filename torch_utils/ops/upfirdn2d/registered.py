"""upfirdn2d as a dispatcher op: schema, shape, default kernel and gradient of any order."""

from typing import Any

import torch

from torch_utils.ops.upfirdn2d import reference

Tensor = torch.Tensor

torch.library.define(
    "styleloom::upfirdn2d",
    "(Tensor x, Tensor f, int[] up, int[] down, SymInt[] padding, bool flip_filter, float gain) -> Tensor",
)


@torch.library.impl("styleloom::upfirdn2d", "default")
def _upfirdn2d(
    x: Tensor, f: Tensor, up: list[int], down: list[int], padding: list[int], flip_filter: bool, gain: float
) -> Tensor:
    x0, x1, y0, y1 = padding
    y = reference.upfirdn2d(x, f, (up[0], up[1]), (down[0], down[1]), (x0, x1, y0, y1), flip_filter, gain)
    return y.contiguous(memory_format=_format(x))


def _format(x: Tensor) -> torch.memory_format:
    """Of what the op returns for x. Below 8 channels (images) nothing is gained by their coming last."""
    last = x.shape[1] >= 8 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


@torch.library.register_fake("styleloom::upfirdn2d")
def _upfirdn2d_shape(
    x: Tensor, f: Tensor, up: list[int], down: list[int], padding: list[int], flip_filter: bool, gain: float
) -> Tensor:
    width = reference.output_size(x.shape[3], up[0], down[0], (padding[0], padding[1]), f.shape[-1])
    height = reference.output_size(x.shape[2], up[1], down[1], (padding[2], padding[3]), f.shape[0])
    size = [x.shape[0], x.shape[1], height, width]
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=_format(x))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, f, ctx.up, ctx.down, ctx.padding, ctx.flip_filter, ctx.gain = inputs
    ctx.save_for_backward(f)
    ctx.sizes = (x.shape[3], x.shape[2]), (output.shape[3], output.shape[2])


def _gradient(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    """The transpose: up and down exchanged, the filter flipped, the paddings chosen so that the sizes come back."""
    (f,) = ctx.saved_tensors
    padding = []
    for axis, taps in enumerate((f.shape[-1], f.shape[0])):
        up, down, pad0 = ctx.up[axis], ctx.down[axis], ctx.padding[2 * axis]
        size, out_size = ctx.sizes[0][axis], ctx.sizes[1][axis]
        padding += [taps - 1 - pad0, size * up - out_size * down + pad0 - up + 1]
    dx = torch.ops.styleloom.upfirdn2d(g, f, ctx.down, ctx.up, padding, not ctx.flip_filter, ctx.gain)
    return dx, None, None, None, None, None, None


torch.library.register_autograd("styleloom::upfirdn2d", _gradient, setup_context=_save)
