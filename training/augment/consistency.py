"""Balanced consistency regularisation, bCR (Zhao et al. 2021, "Improved Consistency Regularization for GANs"): the
discriminator should say the same of an image and of a randomly varied copy, real or generated.

Here is what varies the copies; strengths and kinds are those of DiffAugment (Zhao et al. 2020, section 4) and flips.
"""

import torch

from training.augment import diffaugment

TRANSLATION = 1 / 8  # largest shift, relative to the side
CUTOUT = 1 / 2  # side of the blanked rectangle, relative to the image's
BRIGHTNESS = 0.5  # largest offset, in the units of the images


def vary(images: torch.Tensor) -> torch.Tensor:
    """A random variant of every image [N, C, H, W]: flip, shift, colours, cutout. What is uncovered or cut out is 0.

    Draws come from the default generator of the images' device.
    """
    return cut_out(vary_colours(translate(flip(images))))


def flip(images: torch.Tensor) -> torch.Tensor:
    """Mirrors every other image, at random, left to right."""
    return torch.where(_uniform(images, 0, 1) < 0.5, images.flip(3), images)


def translate(images: torch.Tensor) -> torch.Tensor:
    """Shifts every image by whole pixels, up to 1/8 of the side each way on both axes."""
    rows, columns = (_shifts(len(images), side, images.device) for side in images.shape[2:])
    return diffaugment.shift(images, rows, columns)


def vary_colours(images: torch.Tensor) -> torch.Tensor:
    """Brightness + U(-1/2, 1/2); saturation times U(0, 2); contrast times U(1/2, 3/2)."""
    images = images + _uniform(images, -BRIGHTNESS, BRIGHTNESS)
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * _uniform(images, 0, 2)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * _uniform(images, 0.5, 1.5)


def cut_out(images: torch.Tensor) -> torch.Tensor:
    """Blanks a rectangle of half the side whose centre is anywhere in the image."""
    height, width = images.shape[2:]
    size = (diffaugment.pixels(height, CUTOUT), diffaugment.pixels(width, CUTOUT))
    top, left = (_corners(len(images), side, s, images.device) for side, s in zip((height, width), size))
    return diffaugment.blank(images, top, left, size)


def _shifts(n: int, side: int, device: torch.device) -> torch.Tensor:
    reach = diffaugment.pixels(side, TRANSLATION)
    return torch.randint(0, 2 * reach + 1, [n], device=device) - reach


def _corners(n: int, side: int, length: int, device: torch.device) -> torch.Tensor:
    return torch.randint(0, side + 1, [n], device=device) - length // 2


def _uniform(images: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """One number per image, [N, 1, 1, 1]."""
    return torch.rand([len(images), 1, 1, 1], device=images.device, dtype=images.dtype) * (high - low) + low
