"""Named ways to bring images to a detector's input size. The choice changes FID noticeably (Parmar et al. 2022,
"On Aliased Resizing and Surprising Subtleties in GAN Evaluation"), so every result states it."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from dnnlib import UserError


def torch_bilinear(images: torch.Tensor, size: int) -> torch.Tensor:
    """Bilinear, pixel centres aligned, no antialiasing: `F.interpolate(align_corners=False)`."""
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False)


def tf1_bilinear(images: torch.Tensor, size: int) -> torch.Tensor:
    """Bilinear as TensorFlow 1 did inside the original FID graph: source = destination * scale, no half-pixel shift."""
    rows, row_weight = _tf1_taps(images.shape[2], size, images)
    cols, col_weight = _tf1_taps(images.shape[3], size, images)
    top, bottom = images[:, :, rows[0]], images[:, :, rows[1]]
    lines = top + (bottom - top) * row_weight[:, None]
    left, right = lines[:, :, :, cols[0]], lines[:, :, :, cols[1]]
    return left + (right - left) * col_weight


def clean_bicubic(images: torch.Tensor, size: int) -> torch.Tensor:
    """Antialiased bicubic in floating point, clipped to [0, 255], as Pillow computes it ("clean-fid")."""
    return F.interpolate(images, (size, size), mode="bicubic", align_corners=False, antialias=True).clamp(0, 255)


RESIZE_MODES: dict[str, Callable[[torch.Tensor, int], torch.Tensor]] = {
    "torch_bilinear": torch_bilinear,
    "tf1_bilinear": tf1_bilinear,
    "clean_bicubic": clean_bicubic,
}


def resize(images: torch.Tensor, size: int, mode: str) -> torch.Tensor:
    """Float images [N, C, H, W] -> [N, C, size, size] by the named mode; images of that size pass unchanged."""
    if mode not in RESIZE_MODES:
        raise UserError(f"unknown resize mode {mode!r}; known: {', '.join(RESIZE_MODES)}")
    if images.shape[2:] == (size, size):
        return images
    return RESIZE_MODES[mode](images, size)


def _tf1_taps(old: int, new: int, like: torch.Tensor) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The two source indices of every destination pixel, and the weight of the second."""
    source = torch.arange(new, device=like.device, dtype=torch.float32) * (old / new)
    first = source.floor().long().clamp(max=old - 1)
    return (first, (first + 1).clamp(max=old - 1)), (source - first).to(like.dtype)
