"""Neighbourhood attention on 2-D maps: every query sees the K x K keys around it (Hassani et al. 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from torch_utils.ops.dispatch import autocast_dtype, use_reference
from torch_utils.ops.neighborhood_attention import natten_backend, reference, registered
from torch_utils.ops.selection import choice


@dataclass(frozen=True)
class Partition:
    """A run of consecutive heads that share window size, dilation and bias table (a "Hydra" head group)."""

    heads: int
    kernel_size: int | Sequence[int]  # K, or (K_y, K_x)
    dilation: int | Sequence[int] = 1  # d, or (d_y, d_x)
    rpb: torch.Tensor | None = None  # [heads, 2K_y-1, 2K_x-1]


def _axes(value: int | Sequence[int]) -> tuple[int, int]:
    y, x = (value, value) if isinstance(value, int) else value
    return int(y), int(x)


def _check_window(size: int, kernel: int, dilation: int, axis: str) -> None:
    if kernel < 1 or dilation < 1:
        raise ValueError(f"kernel_size and dilation must be at least 1, but are {kernel} and {dilation}")
    if kernel * dilation > size:
        raise ValueError(
            f"kernel_size {kernel} x dilation {dilation} exceeds the {axis} {size} of the map: "
            f"use a dilation of at most {size // kernel} or a smaller kernel"
        )
    if kernel % 2 == 0 and kernel != size:
        raise ValueError(f"kernel_size {kernel} is even: use an odd one, or {size} for full attention")


def _check(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, partitions: Sequence[Partition]) -> None:
    if q.ndim != 5 or q.shape != k.shape or q.shape != v.shape:
        shapes = ", ".join(str(tuple(t.shape)) for t in (q, k, v))
        raise ValueError(f"q, k and v must all be [N, H, W, heads, D] of one shape, but are {shapes}")
    if sum(p.heads for p in partitions) != q.shape[3] or not partitions or any(p.heads < 1 for p in partitions):
        raise ValueError(f"the partitions hold {[p.heads for p in partitions]} heads, the tensors {q.shape[3]}")
    for p in partitions:
        kernel, dilation = _axes(p.kernel_size), _axes(p.dilation)
        _check_window(q.shape[1], kernel[0], dilation[0], "height")
        _check_window(q.shape[2], kernel[1], dilation[1], "width")
        expected = (p.heads, 2 * kernel[0] - 1, 2 * kernel[1] - 1)
        if p.rpb is not None and tuple(p.rpb.shape) != expected:
            raise ValueError(f"rpb must be [heads, 2K-1, 2K-1] = {expected}, but is {tuple(p.rpb.shape)}")


def na2d(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    rpb: torch.Tensor | None = None,
    scale: float | None = None,
) -> torch.Tensor:
    """Neighbourhood attention (Hassani et al. 2023, section 3; dilation: Hassani and Shi 2022).

    On each axis, position i attends to K members of the group of positions congruent to i mod dilation: those
    nearest to i, the window shifted inward at the borders. Score = scale * q.k + rpb[head, dy + K-1, dx + K-1]
    with dy, dx the distance from query to key in group steps; softmax over the K*K neighbours; weighted sum of v.

    Args:
        q, k, v: [N, H, W, heads, D].
        kernel_size: K or (K_y, K_x); odd, or the whole side.
        dilation: d or (d_y, d_x); K * d may not exceed the side.
        rpb: relative position bias [heads, 2K_y-1, 2K_x-1], or None.
        scale: of the scores; None means D^-0.5.

    Returns:
        [N, H, W, heads, D]. Differentiable twice.

    Raises:
        ValueError: shapes that don't fit, an even kernel, K * d larger than the map.
    """
    return hydra_na2d(q, k, v, [Partition(q.shape[3] if q.ndim == 5 else 1, kernel_size, dilation, rpb)], scale)


def hydra_na2d(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    partitions: Sequence[Partition],
    scale: float | None = None,
) -> torch.Tensor:
    """`na2d` whose heads are split into partitions, each with its own window, dilation and bias (Walton et al. 2022).

    Args:
        q, k, v: [N, H, W, heads, D].
        partitions: consecutive runs of heads; together they hold all of them.
        scale: of the scores; None means D^-0.5.

    Returns:
        [N, H, W, heads, D]. Differentiable twice.

    Raises:
        ValueError: as `na2d`; or the partitions' heads don't add up.
    """
    _check(q, k, v, partitions)
    scale = q.shape[4] ** -0.5 if scale is None else float(scale)
    dtype = autocast_dtype(q)
    if use_reference(q):
        return _reference(q.to(dtype), k.to(dtype), v.to(dtype), partitions, scale)
    flat = [n for p in partitions for n in (p.heads, *_axes(p.kernel_size), *_axes(p.dilation))]
    rpb = _flat_bias(partitions, q, registered.sum_dtype(dtype))
    arguments = (q.to(dtype), k.to(dtype), v.to(dtype), rpb, flat, scale)
    op = torch.ops.styleloom.na2d_natten if _use_natten(*arguments) else torch.ops.styleloom.na2d
    return op(*arguments)[0]


def _use_natten(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rpb: torch.Tensor | None, flat: list[int], scale: float
) -> bool:
    """Whether the package natten serves: if it is forced (RuntimeError where it can't), or is the faster one."""
    if choice() == "natten":
        reason = natten_backend.why_not(q, rpb, flat)
        if reason is not None:
            raise RuntimeError(f"ops.use('natten'): {reason}")
        return True
    return choice() == "auto" and natten_backend.is_faster(q, k, v, rpb, flat, scale)


def _flat_bias(partitions: Sequence[Partition], like: torch.Tensor, dtype: torch.dtype) -> torch.Tensor | None:
    """All bias tables end to end, zeros for partitions without; None if none has one."""
    if all(p.rpb is None for p in partitions):
        return None
    tables = []
    for p in partitions:
        ky, kx = _axes(p.kernel_size)
        size = p.heads * (2 * ky - 1) * (2 * kx - 1)
        tables.append(like.new_zeros(size, dtype=dtype) if p.rpb is None else p.rpb.flatten().to(dtype))
    return tables[0] if len(tables) == 1 else torch.cat(tables)


def _reference(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, partitions: Sequence[Partition], scale: float
) -> torch.Tensor:
    outputs, first = [], 0
    for p in partitions:
        heads = slice(first, first + p.heads)
        q1, k1, v1 = q[..., heads, :], k[..., heads, :], v[..., heads, :]
        outputs.append(reference.na2d(q1, k1, v1, p.rpb, _axes(p.kernel_size), _axes(p.dilation), scale)[0])
        first += p.heads
    return torch.cat(outputs, 3)


def na2d_probabilities(
    q: torch.Tensor,
    k: torch.Tensor,
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    rpb: torch.Tensor | None = None,
    scale: float | None = None,
) -> torch.Tensor:
    """The attention probabilities of `na2d`, for pictures: [N, H, W, heads, K_y, K_x], summing to 1 over a window.

    Row a, column b of the window is key position `reference.window_table(side, K, d)[0][i][a or b]` of each axis.
    Arguments and errors as `na2d`.
    """
    _check(q, k, k, [Partition(q.shape[3] if q.ndim == 5 else 1, kernel_size, dilation, rpb)])
    kernel, dilation = _axes(kernel_size), _axes(dilation)
    scale = q.shape[4] ** -0.5 if scale is None else float(scale)
    s = reference.scores(q, k, rpb, kernel, dilation, scale)
    return s.softmax(-1).unflatten(-1, kernel)
