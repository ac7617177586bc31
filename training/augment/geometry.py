"""Homogeneous maps and the resampling of images under them, for the augmentation pipeline.

Coordinates are (x, y) in pixels, origin at the image's centre. Matrices are batches [N, 3, 3] that take an output
position to the input position it is read from. Source: Karras et al., "Training Generative Adversarial Networks
with Limited Data", 2020, appendix B.
"""

import functools

import torch
import torch.nn.functional as F

from torch_utils.ops.upfirdn2d import setup_filter, upfirdn2d, upsample2d

# Wavelet `sym6`: its half-band product makes x2 up- then downsampling the identity, so unmoved pixels stay exact.
SYM6 = (
    *(0.015404109327, 0.003490712084, -0.117990111148, -0.048311742586),
    *(0.491055941927, 0.787641141030, 0.337929421728, -0.072637522786),
    *(-0.021060292512, 0.044724901771, 0.001767711864, -0.007800708325),
)
MARGIN = 6  # pixels around the image that the x2 filters read


def matrix(rows: list[list[torch.Tensor | float]], like: torch.Tensor) -> torch.Tensor:
    """[N, R, C] from R rows of C entries, each a number or a tensor [N]; `like` [N] gives N, dtype and device."""
    entries = [e if isinstance(e, torch.Tensor) else torch.full_like(like, e) for row in rows for e in row]
    return torch.stack(entries, dim=1).unflatten(1, (len(rows), len(rows[0])))


def translate(tx: torch.Tensor, ty: torch.Tensor) -> torch.Tensor:
    """[N, 3, 3] that adds (tx, ty), each [N]."""
    return matrix([[1, 0, tx], [0, 1, ty], [0, 0, 1]], like=tx)


def scale(sx: torch.Tensor, sy: torch.Tensor) -> torch.Tensor:
    """[N, 3, 3] that multiplies x by sx and y by sy, each [N]."""
    return matrix([[sx, 0, 0], [0, sy, 0], [0, 0, 1]], like=sx)


def rotate(angle: torch.Tensor) -> torch.Tensor:
    """[N, 3, 3] that rotates by `angle` [N] in radians, x towards y."""
    cos, sin = angle.cos(), angle.sin()
    return matrix([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], like=angle)


def warp(images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Resamples images [N, C, H, W] under `maps` [N, 3, 3] without aliasing; outside the image is its reflection.

    Images whose map is the identity are returned as they are. Twice differentiable in `images`.
    """
    moved = (maps != torch.eye(3, device=maps.device, dtype=maps.dtype)).flatten(1).any(dim=1)
    indices = moved.nonzero().squeeze(1)
    if len(indices) == 0:
        return images
    if len(indices) == len(images):
        return _warp_all(images, maps)
    return images.index_copy(0, indices, _warp_all(images[indices], maps[indices]))


def _warp_all(images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    height, width = images.shape[2:]
    pad = _reflection(maps, height, width)
    doubled = _pad_and_double(images, pad)
    grid = _sampling_grid(maps, pad, source=doubled.shape[2:], target=(2 * (height + MARGIN), 2 * (width + MARGIN)))
    moved = F.grid_sample(doubled, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return _halve(moved)


def _reflection(maps: torch.Tensor, height: int, width: int) -> list[int]:
    """Pixels [left, right, top, bottom] by which the images must be continued so that every read lies inside."""
    x, y = (width - 1) / 2, (height - 1) / 2
    corners = maps.new_tensor([[-x, x, x, -x], [-y, -y, y, y], [1, 1, 1, 1]])
    reached = (maps[:, :2] @ corners).permute(1, 0, 2).flatten(1)  # [2, N * 4]
    excursion = torch.stack([-reached[0], reached[0], -reached[1], reached[1]]).amax(dim=1)
    needed = excursion + MARGIN - maps.new_tensor([x, x, y, y])
    limit = maps.new_tensor([width - 1, width - 1, height - 1, height - 1])  # what one reflection can give
    return needed.clamp(min=0).minimum(limit).ceil().int().tolist()


def _sampling_grid(
    maps: torch.Tensor, pad: list[int], source: tuple[int, int] | torch.Size, target: tuple[int, int]
) -> torch.Tensor:
    """Grid [N, *target, 2] in grid_sample's units, reading from the padded and doubled image of size `source`."""
    left, right, top, bottom = pad
    one = maps.new_ones(1)
    half = one / 2
    maps = translate((left - right) * half, (top - bottom) * half) @ maps
    maps = scale(2 * one, 2 * one) @ maps @ scale(half, half)
    maps = translate(-half, -half) @ maps @ translate(half, half)  # the phase of the x2 upsampling
    to_units = scale(2 / source[1] * one, 2 / source[0] * one)
    from_units = scale(target[1] * half, target[0] * half)
    theta = to_units @ maps @ from_units
    return F.affine_grid(theta[:, :2], [len(maps), 1, *target], align_corners=False)


def _pad_and_double(images: torch.Tensor, pad: list[int]) -> torch.Tensor:
    return upsample2d(F.pad(images, pad, mode="reflect"), _sym6(images.dtype, images.device))


def _halve(images: torch.Tensor) -> torch.Tensor:
    return upfirdn2d(images, _sym6(images.dtype, images.device), down=2, padding=[-1] * 4, flip_filter=True)


@functools.lru_cache(maxsize=8)
def _sym6(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return setup_filter(SYM6, device=device).to(dtype)
