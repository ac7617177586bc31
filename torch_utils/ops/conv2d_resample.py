"""Convolution with filtered up- or downsampling, in the order that keeps the work small."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from torch_utils.ops.upfirdn2d.public import _padding, filter_size, upfirdn2d


def _conv(x: torch.Tensor, w: torch.Tensor, stride: int, groups: int, flip_weight: bool) -> torch.Tensor:
    return F.conv2d(x, w if flip_weight else w.flip([2, 3]), stride=stride, groups=groups)


def _transposed_conv(x: torch.Tensor, w: torch.Tensor, up: int, groups: int, flip_weight: bool) -> torch.Tensor:
    """Inserts up-1 zeros between pixels and convolves, keeping every position that w touches."""
    out_channels, in_channels, kh, kw = w.shape
    w = w.reshape(groups, out_channels // groups, in_channels, kh, kw).transpose(1, 2)
    w = w.reshape(groups * in_channels, out_channels // groups, kh, kw)
    return F.conv_transpose2d(x, w.flip([2, 3]) if flip_weight else w, stride=up, groups=groups)


def conv2d_resample(
    x: torch.Tensor,
    w: torch.Tensor,
    f: torch.Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
) -> torch.Tensor:
    """Upsample with f, convolve with w, downsample with f (Karras et al. 2020, appendix B).

    Args:
        x: [N, C_in, H, W].
        w: [C_out, C_in / groups, kh, kw].
        f: low-pass filter from `setup_filter`, or None.
        up: integer upsampling factor, before w.
        down: integer downsampling factor, after w.
        padding: of the upsampled image, on top of what keeps f centred: a number, [x, y] or [x0, x1, y0, y1].
        groups: as in torch's conv2d.
        flip_weight: True correlates with w (what torch calls convolution), False convolves.
        flip_filter: True correlates with f, False convolves.

    Returns:
        [N, C_out, H', W'], H' = (H * up + what the padding adds - (kh - 1)) // down. Differentiable to any order.

    Raises:
        ValueError: shapes or factors that don't fit.
    """
    if up < 1 or down < 1:
        raise ValueError(f"up and down must be at least 1, but are {up} and {down}")
    if w.ndim != 4 or x.ndim != 4 or x.shape[1] != w.shape[1] * groups:
        raise ValueError(f"weights {tuple(w.shape)} with {groups} groups don't fit an input of {tuple(x.shape)}")
    kh, kw = w.shape[2:]
    x0, x1, y0, y1 = _padding(padding)
    fw, fh = filter_size(f)
    if up > 1:
        x0, x1, y0, y1 = x0 + (fw + up - 1) // 2, x1 + (fw - up) // 2, y0 + (fh + up - 1) // 2, y1 + (fh - up) // 2
    if down > 1:
        x0, x1 = x0 + (fw - down + 1) // 2, x1 + (fw - down) // 2
        y0, y1 = y0 + (fh - down + 1) // 2, y1 + (fh - down) // 2
    pad = [x0, x1, y0, y1]

    if up == 1 and down == 1:
        if x0 == x1 and y0 == y1 and min(pad) >= 0:
            return F.conv2d(x, w if flip_weight else w.flip([2, 3]), padding=(y0, x0), groups=groups)
        return _conv(upfirdn2d(x, None, padding=pad), w, 1, groups, flip_weight)
    if up == 1:  # a 1x1 kernel needs only the pixels that remain
        if kh == kw == 1:
            return _conv(upfirdn2d(x, f, down=down, padding=pad, flip_filter=flip_filter), w, 1, groups, flip_weight)
        return _conv(upfirdn2d(x, f, padding=pad, flip_filter=flip_filter), w, down, groups, flip_weight)
    if kh == kw == 1 and down == 1:
        x = _conv(x, w, 1, groups, flip_weight)
        return upfirdn2d(x, f, up=up, padding=pad, flip_filter=flip_filter, gain=up**2)
    if down == 1:
        x = _transposed_conv(x, w, up, groups, flip_weight)
        pad = [x0 - (kw - 1), x1 - (kw - up), y0 - (kh - 1), y1 - (kh - up)]
        return upfirdn2d(x, f, padding=pad, flip_filter=flip_filter, gain=up**2)
    x = upfirdn2d(x, f, up=up, padding=pad, flip_filter=flip_filter, gain=up**2)
    x = _conv(x, w, 1, groups, flip_weight)
    return upfirdn2d(x, f, down=down, flip_filter=flip_filter)
