"""Balanced consistency regularisation, bCR (Zhao et al. 2021, "Improved Consistency Regularization for GANs"): the
discriminator should say the same of an image and of a randomly varied copy, real or generated.

Here is what varies the copies; strengths and kinds are those of DiffAugment (Zhao et al. 2020, section 4) and flips.
"""

import torch
import torch.nn.functional as F

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
    n, _, height, width = images.shape
    rows, pad_y = _shifted_positions(n, height, images.device)
    columns, pad_x = _shifted_positions(n, width, images.device)
    padded = F.pad(images, [pad_x, pad_x, pad_y, pad_y])
    index = torch.arange(n, device=images.device)[:, None, None]
    return padded[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def vary_colours(images: torch.Tensor) -> torch.Tensor:
    """Brightness + U(-1/2, 1/2); saturation times U(0, 2); contrast times U(1/2, 3/2)."""
    images = images + _uniform(images, -BRIGHTNESS, BRIGHTNESS)
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * _uniform(images, 0, 2)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * _uniform(images, 0.5, 1.5)


def cut_out(images: torch.Tensor) -> torch.Tensor:
    """Blanks a rectangle of half the side whose centre is anywhere in the image."""
    n, _, height, width = images.shape
    rows, columns = _cut_positions(n, height, images.device), _cut_positions(n, width, images.device)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


def _shifted_positions(n: int, side: int, device: torch.device) -> tuple[torch.Tensor, int]:
    """Where, along an axis padded on both sides, the pixels of each image come from [n, side]; and the padding."""
    reach = int(side * TRANSLATION + 0.5)
    start = torch.randint(0, 2 * reach + 1, [n, 1], device=device)
    return start + torch.arange(side, device=device), reach


def _cut_positions(n: int, side: int, device: torch.device) -> torch.Tensor:
    """Which positions of an axis each image loses [n, side]."""
    length = int(side * CUTOUT + 0.5)
    start = torch.randint(0, side + 1, [n, 1], device=device) - length // 2
    position = torch.arange(side, device=device)
    return (position >= start) & (position < start + length)


def _uniform(images: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """One number per image, [N, 1, 1, 1]."""
    return torch.rand([len(images), 1, 1, 1], device=images.device, dtype=images.dtype) * (high - low) + low
