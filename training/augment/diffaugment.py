"""DiffAugment: colour, translation, cutout and flip, differentiable (Zhao et al. 2020, "Differentiable Augmentation for
Data-Efficient GAN Training", section 3; strengths and flip as GAT has them). For any number of channels.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from dnnlib.config import Share
from dnnlib.errors import UserError


@dataclass
class DiffAugmentConfig:
    """How often and how strongly each transform is applied; 0 leaves it out."""

    color: Share = 0.5  # probability of brightness, saturation and contrast, which come together
    translation: Share = 0.125  # largest shift, as a part of the side
    cutout: Share = 0.5  # side of the blanked rectangle, as a part of the image's
    flip: Share = 0.4  # probability of the mirror image


@dataclass
class DiffAugmentDraw:
    """The choices for N images; None where a transform is left out."""

    color: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor] | None  # bool [N], and three of U(0, 1) [N]
    shift: tuple[torch.Tensor, torch.Tensor] | None  # rows and columns [N], whole pixels
    hole: tuple[torch.Tensor, torch.Tensor, tuple[int, int]] | None  # top and left [N]; (height, width)
    flip: torch.Tensor | None  # bool [N]

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """Images [N, C, H, W] in [-1, 1] -> the same shape."""
        if self.color is not None:
            mask, *amounts = self.color
            images = torch.where(_per_image(mask), change_colors(images, *amounts), images)
        if self.shift is not None:
            images = shift(images, *self.shift)
        if self.hole is not None:
            images = blank(images, *self.hole)
        return images if self.flip is None else torch.where(_per_image(self.flip), images.flip(3), images)

    def moved(self, images: torch.Tensor) -> torch.Tensor:
        """Translation and flip alone."""
        return replace(self, color=None, hole=None).apply(images)


class DiffAugment:
    """Augments images. Raises UserError for strengths that make no sense."""

    def __init__(self, cfg: DiffAugmentConfig) -> None:
        for name in ("color", "flip", "translation", "cutout"):
            if not 0 <= getattr(cfg, name) <= 1:
                raise UserError(f"DiffAugment: {name} is a share from 0 to 1, not {getattr(cfg, name)}")
        self.cfg = cfg

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Images [N, C, H, W] in [-1, 1] -> the same shape, each image varied by choices of its own."""
        return self.draw(images).apply(images)

    def draw(self, like: torch.Tensor) -> DiffAugmentDraw:
        """Choices for images of the shape, type and device of `like` [N, C, H, W]."""
        cfg, n, device = self.cfg, len(like), like.device
        height, width = like.shape[2:]

        def uniform() -> torch.Tensor:
            return torch.rand(n, device=device, dtype=like.dtype)

        color = (uniform() < cfg.color, uniform(), uniform(), uniform()) if cfg.color else None
        moved = hole = None
        if cfg.translation:
            reach = (pixels(height, cfg.translation), pixels(width, cfg.translation))
            moved = tuple(torch.randint(-r, r + 1, [n], device=device) for r in reach)
        if cfg.cutout:
            size = (pixels(height, cfg.cutout), pixels(width, cfg.cutout))
            # The centre may be any border between pixels, that of the image included.
            top, left = (
                torch.randint(0, side + 1, [n], device=device) - s // 2 for side, s in zip((height, width), size)
            )
            hole = (top, left, size)
        flip = uniform() < cfg.flip if cfg.flip else None
        return DiffAugmentDraw(color, moved, hole, flip)  # type: ignore[arg-type]


def pixels(side: int, part: float) -> int:
    """`part` of a side in whole pixels, halves rounded up."""
    return int(side * part + 0.5)


def change_colors(
    images: torch.Tensor,  # [N, C, H, W]
    brightness: torch.Tensor,  # [N] in (0, 1): an offset of -1/2 to 1/2
    saturation: torch.Tensor,  # [N] in (0, 1): distance from the channels' mean times 0 to 2
    contrast: torch.Tensor,  # [N] in (0, 1): distance from the image's mean times 1/2 to 3/2
) -> torch.Tensor:
    """Brightness, saturation, contrast. Both means are those of the unchanged images."""
    grey, mean = images.mean(dim=1, keepdim=True), images.mean(dim=(1, 2, 3), keepdim=True)
    images = images + (_per_image(brightness) - 0.5)
    images = (images - grey) * (2 * _per_image(saturation)) + grey
    return (images - mean) * (_per_image(contrast) + 0.5) + mean


def shift(images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """out[i, j] = images[i + row, j + column], zero outside: images [N, C, H, W], rows and columns [N] in pixels."""
    height, width = images.shape[2:]
    n, device = len(images), images.device
    # A frame of one zero pixel, which everything outside reads.
    i = (rows[:, None] + torch.arange(height, device=device)).clamp(-1, height) + 1
    j = (columns[:, None] + torch.arange(width, device=device)).clamp(-1, width) + 1
    index = torch.arange(n, device=device)[:, None, None]
    return F.pad(images, [1, 1, 1, 1])[index, :, i[:, :, None], j[:, None, :]].permute(0, 3, 1, 2)


def blank(images: torch.Tensor, top: torch.Tensor, left: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Sets to 0 a rectangle of `size` (height, width) whose corner is at (top, left), each [N]; parts may lie outside
    the images [N, C, H, W]."""

    def inside(side: int, start: torch.Tensor, length: int) -> torch.Tensor:
        position = torch.arange(side, device=images.device)
        return (position >= start[:, None]) & (position < start[:, None] + length)

    rows, columns = inside(images.shape[2], top, size[0]), inside(images.shape[3], left, size[1])
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


def _per_image(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None, None]
