"""Cases of the ops, their derivatives and their definitions: for the kernels of every device."""

import torch
import torch.nn.functional as F

from torch_utils import ops
from torch_utils.ops.neighborhood_attention import na2d
from torch_utils.ops.upfirdn2d import setup_filter


def error(got, want):
    """Largest difference, relative to the largest expected value where that exceeds 1 (derivatives may be all zero)."""
    assert got.shape == want.shape
    got, want = got.detach().double(), want.detach().double()
    return float((got - want).abs().max() / want.abs().max().clamp(min=1)) if got.numel() else 0.0


def attention_inputs(shape, kernel, dtype, seed=0, heads=None):
    gen = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(shape, generator=gen, dtype=dtype) for _ in range(3)]
    tensors.append(torch.randn(heads or shape[3], 2 * kernel[0] - 1, 2 * kernel[1] - 1, generator=gen, dtype=dtype))
    return tensors


def attention_orders(implementation, tensors, kernel, dilation):
    """Output, first and second derivatives of a fixed function of na2d's output."""
    leaves = [t.clone().requires_grad_() for t in tensors]
    with ops.use(implementation):
        y = na2d(*leaves[:3], kernel, dilation, rpb=leaves[3])
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    first = torch.autograd.grad((y * weights + y**2).sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum((g**2).sum() for g in first), leaves)
    return [y, *first, *second]


ATTENTION_GRID = [
    ((2, 7, 7, 2, 8), (7, 7), (1, 1)),  # the window is the map
    ((1, 3, 3, 1, 1), (3, 3), (1, 1)),
    ((1, 1, 1, 2, 4), (1, 1), (1, 1)),
    ((2, 9, 12, 1, 5), (3, 3), (2, 4)),  # groups of 3, 4 and 5 members
    ((1, 16, 16, 2, 32), (5, 5), (3, 3)),
    ((1, 20, 33, 2, 16), (7, 7), (1, 4)),
    ((1, 14, 28, 3, 12), (3, 13), (4, 2)),
    ((1, 56, 57, 1, 3), (7, 7), (8, 8)),  # K * d is the side
    ((2, 4, 4, 4, 8), (4, 4), (1, 1)),  # full attention, even kernel
    ((1, 40, 26, 1, 36), (13, 13), (2, 2)),
    ((1, 61, 9, 2, 5), (3, 3), (1, 1)),  # several bands of rows, each a task
    ((1, 83, 11, 1, 8), (5, 3), (2, 1)),
    ((1, 313, 3, 1, 2), (3, 3), (2, 1)),  # one dilation group has a band less than the other
]


def random_tensor(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def two_orders(implementation, function, leaves):
    """Output, first and second derivatives."""
    leaves = [t.detach().clone(memory_format=torch.preserve_format).requires_grad_() for t in leaves]
    with ops.use(implementation):
        y = function(*leaves)
    first = torch.autograd.grad(
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape) + y**2).sum(), leaves, create_graph=True
    )
    return [y, *first, *torch.autograd.grad(sum((g**2).sum() for g in first), leaves)]


def zero_insertion(x, f, up, down, pad, flip, gain):
    """upfirdn2d by the book, in float64: insert zeros, pad or crop, convolve, decimate."""
    n, c, h, w = x.shape
    big = x.new_zeros(n, c, h * up[1], w * up[0])
    big[:, :, :: up[1], :: up[0]] = x
    big = F.pad(big, list(pad))
    f = f if f.ndim == 2 else f.outer(f)
    f = (f if flip else f.flip([0, 1])).to(x.dtype) * gain
    return F.conv2d(big.flatten(0, 1)[:, None], f[None, None]).unflatten(0, (n, c))[:, :, 0, :: down[1], :: down[0]]


FILTERS = {
    "1331": setup_filter([1, 3, 3, 1]),
    "one": setup_filter(None),
    "odd": torch.arange(15.0).view(3, 5),
    "long": setup_filter(list(range(1, 13))),
}
