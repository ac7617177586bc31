"""upfirdn2d: upsample, pad, FIR filter and downsample images in one pass; and the resamplers built on it."""

from collections.abc import Sequence

import torch

from torch_utils.ops.dispatch import use_reference
from torch_utils.ops.upfirdn2d import (
    reference,
    registered,  # noqa: F401 (registers the op)
)

SEPARABLE_TAPS = 8  # a 1-D filter with fewer taps is stored as its outer product: one pass beats two


def setup_filter(
    f: torch.Tensor | Sequence[float] | Sequence[Sequence[float]] | float | None,
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1.0,
    separable: bool | None = None,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Prepares a FIR filter for `upfirdn2d`.

    Args:
        f: 1-D taps (a separable filter), 2-D taps, a number, or None for the identity.
        normalize: scale so that the taps sum to 1.
        flip_filter: flip on all axes.
        gain: gain of the whole two-dimensional filter.
        separable: keep a 1-D filter 1-D (two passes); None means from 8 taps on.
        device: where the result lives; None means where f is.

    Returns:
        float32 [fh, fw], or [taps] for a filter that runs as two passes.

    Raises:
        ValueError: f is empty or has more than two axes, or a 2-D filter is called separable.
    """
    taps = torch.as_tensor(1.0 if f is None else f, dtype=torch.float32, device=device)
    if taps.ndim > 2 or taps.numel() == 0:
        raise ValueError(f"a filter has one or two axes and at least one tap, not shape {tuple(taps.shape)}")
    if taps.ndim == 0:
        taps = taps[None]
    if separable is None:
        separable = taps.ndim == 1 and taps.numel() >= SEPARABLE_TAPS
    if separable and taps.ndim == 2:
        raise ValueError("a 2-D filter can't be made separable: pass its 1-D taps")
    if taps.ndim == 1 and not separable:
        taps = taps.outer(taps)
    if normalize:
        taps = taps / taps.sum()
    if flip_filter:
        taps = taps.flip(list(range(taps.ndim)))
    return taps * gain ** (taps.ndim / 2)


def _pair(value: int | Sequence[int], name: str) -> tuple[int, int]:
    x, y = (value, value) if isinstance(value, int) else value
    if x < 1 or y < 1:
        raise ValueError(f"{name} must be at least 1, but is {value}")
    return int(x), int(y)


def _padding(padding: int | Sequence[int]) -> tuple[int, int, int, int]:
    if isinstance(padding, int):
        return (padding,) * 4
    if len(padding) == 2:
        x, y = padding
        return int(x), int(x), int(y), int(y)
    x0, x1, y0, y1 = padding
    return int(x0), int(x1), int(y0), int(y1)


def filter_size(f: torch.Tensor | None) -> tuple[int, int]:
    """(width, height) of a filter in taps; (1, 1) for None."""
    return (1, 1) if f is None else (f.shape[-1], f.shape[0])


def upfirdn2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> torch.Tensor:
    """Upsample, pad, filter, downsample (Karras et al. 2018, section 3; polyphase form, Vaidyanathan 1993).

    Per channel: up-1 zeros after every pixel, pad or crop, convolve with f, scale, keep every down-th pixel.

    Args:
        x: [N, C, H, W], floating.
        f: filter from `setup_filter`, [fh, fw] or [taps] (separable); None is the identity.
        up: integer factor, or (x, y).
        down: integer factor, or (x, y).
        padding: pixels of the upsampled image: one number, [x, y] or [x0, x1, y0, y1]; negative crops.
        flip_filter: correlate with f instead of convolving.
        gain: scale of the result.

    Returns:
        [N, C, (H * up + y0 + y1 - fh) // down + 1, (W * up + x0 + x1 - fw) // down + 1].
        Differentiable in x to any order (and in f, by the reference).

    Raises:
        ValueError: x is not 4-D, a factor is below 1, or the padded image is smaller than the filter.
    """
    if x.ndim != 4:
        raise ValueError(f"x must be [N, C, H, W], but has shape {tuple(x.shape)}")
    f = torch.ones([1, 1], device=x.device) if f is None else f
    up, down, pad = _pair(up, "up"), _pair(down, "down"), _padding(padding)
    taps = filter_size(f)
    if x.shape[3] * up[0] + pad[0] + pad[1] < taps[0] or x.shape[2] * up[1] + pad[2] + pad[3] < taps[1]:
        raise ValueError(f"the padded image of {tuple(x.shape)} is smaller than the filter {tuple(f.shape)}")
    if use_reference(x) or f.requires_grad:  # the op has no gradient in f
        return reference.upfirdn2d(x, f, up, down, pad, flip_filter, float(gain))
    return torch.ops.styleloom.upfirdn2d(x, f, up, down, pad, flip_filter, float(gain))


def filter2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> torch.Tensor:
    """Filters images [N, C, H, W] to the same size (plus padding), borders taken as zero."""
    (fw, fh), (x0, x1, y0, y1) = filter_size(f), _padding(padding)
    pad = [x0 + fw // 2, x1 + (fw - 1) // 2, y0 + fh // 2, y1 + (fh - 1) // 2]
    return upfirdn2d(x, f, padding=pad, flip_filter=flip_filter, gain=gain)


def upsample2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> torch.Tensor:
    """Upsamples images [N, C, H, W] `up` times; the gain of the zero insertion, up_x * up_y, is made good."""
    (ux, uy), (fw, fh), (x0, x1, y0, y1) = _pair(up, "up"), filter_size(f), _padding(padding)
    pad = [x0 + (fw + ux - 1) // 2, x1 + (fw - ux) // 2, y0 + (fh + uy - 1) // 2, y1 + (fh - uy) // 2]
    return upfirdn2d(x, f, up=(ux, uy), padding=pad, flip_filter=flip_filter, gain=gain * ux * uy)


def downsample2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    down: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> torch.Tensor:
    """Downsamples images [N, C, H, W] `down` times."""
    (dx, dy), (fw, fh), (x0, x1, y0, y1) = _pair(down, "down"), filter_size(f), _padding(padding)
    pad = [x0 + (fw - dx + 1) // 2, x1 + (fw - dx) // 2, y0 + (fh - dy + 1) // 2, y1 + (fh - dy) // 2]
    return upfirdn2d(x, f, down=(dx, dy), padding=pad, flip_filter=flip_filter, gain=gain)
