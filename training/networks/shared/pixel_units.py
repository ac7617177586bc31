"""Units of pixel values. Callers always see [-1, 1]; some weights and penalties are meant in ImageNet's statistics."""

from typing import Literal

import torch

from dnnlib.errors import UserError

ValueRange = Literal["none", "imagenet"]  # "none": [-1, 1]; "imagenet": RGB of [0, 1], minus mean, over deviation
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def to_units(img: torch.Tensor, units: ValueRange) -> torch.Tensor:
    """Images [N, C, H, W] in [-1, 1] -> the same in `units`."""
    if units == "none":
        return img
    mean, std = _statistics(img)
    return ((img + 1) / 2 - mean) / std


def from_units(y: torch.Tensor, units: ValueRange) -> torch.Tensor:
    """The inverse of `to_units`; nothing is clamped."""
    if units == "none":
        return y
    mean, std = _statistics(y)
    return 2 * (y * std + mean) - 1


def check_units(units: ValueRange, img_channels: int, where: str) -> None:
    """UserError where images of `img_channels` have no such units; `where` names the option."""
    if units == "imagenet" and img_channels != 3:
        raise UserError(
            f"{where}=imagenet is meant for RGB, but the images have {img_channels} channels: set {where}=none"
        )


def _statistics(like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return like.new_tensor(IMAGENET_MEAN).view(3, 1, 1), like.new_tensor(IMAGENET_STD).view(3, 1, 1)
