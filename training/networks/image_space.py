"""The space that a generator works in: how stored data become what the networks see, and what G makes a picture.

A kind of space is a config dataclass and a class derived from `ImageSpace`, joined by `@register_image_space`; it is
part of the generator's config, so that a network file says how its output is to be read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from dnnlib.config import Tagged, register_kind
from dnnlib.errors import ConfigError, UserError


@dataclass
class ImageSpaceConfig(Tagged):
    """Base of the spaces' configs."""


class ImageSpace:
    """Base class; the networks see float32 [N, C, H, W]."""

    may_mirror = True  # whether flipping what is stored gives the mirrored picture
    takes_pictures = True  # whether pixels in [-1, 1] are what the networks see

    def __init__(self, cfg: Any):
        self.cfg = cfg

    def to_network(self, stored: torch.Tensor) -> torch.Tensor:
        """Stored data [N, C, H, W] -> what the networks see."""
        raise NotImplementedError

    def decode(self, made: torch.Tensor) -> torch.Tensor:
        """What a generator makes -> pictures [N, 1 or 3, H', W'] about [-1, 1], not clamped; differentiable."""
        raise NotImplementedError

    def picture_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the picture that `decode` gives for a network image of `size`."""
        raise NotImplementedError

    def picture_channels(self, channels: int) -> int:
        """Channels of the pictures that are decoded from network images of `channels`."""
        return channels

    def check(self) -> None:
        """UserError where pictures can't be decoded on this machine."""

    def to_pixels(self, made: torch.Tensor) -> torch.Tensor:
        """What a generator makes -> uint8 pictures."""
        return to_uint8(self.decode(made))

    def stored_to_pixels(self, stored: torch.Tensor) -> torch.Tensor:
        """Stored data -> uint8 pictures, for grids of reals."""
        return self.to_pixels(self.to_network(stored))


_classes: dict[type[ImageSpaceConfig], type[ImageSpace]] = {}


def register_image_space(
    kind: str, config_class: type[ImageSpaceConfig]
) -> Callable[[type[ImageSpace]], type[ImageSpace]]:
    """Class decorator: `G.space.kind=KIND` chooses `config_class`, which builds the decorated space."""

    def decorate(space: type[ImageSpace]) -> type[ImageSpace]:
        register_kind(ImageSpaceConfig, kind, config_class)
        _classes[config_class] = space
        return space

    return decorate


def build_space(cfg: ImageSpaceConfig) -> ImageSpace:
    """Config -> space. Raises ConfigError where none is registered."""
    if type(cfg) not in _classes:
        raise ConfigError(f"no image space is registered for {type(cfg).__name__}")
    return _classes[type(cfg)](cfg)


@dataclass
class PixelsConfig(ImageSpaceConfig):
    """Pictures as they are."""


@register_image_space("pixels", PixelsConfig)
class Pixels(ImageSpace):
    """uint8 pixels are stored, the networks see [-1, 1]."""

    def to_network(self, stored: torch.Tensor) -> torch.Tensor:
        return stored.float() / 127.5 - 1

    def decode(self, made: torch.Tensor) -> torch.Tensor:
        return made

    def picture_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size

    def stored_to_pixels(self, stored: torch.Tensor) -> torch.Tensor:
        return stored


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Float images in [-1, 1], [..., C, H, W] -> uint8 by the field's rule: x * 127.5 + 128, clamped, cut off.

    UserError for what can't be a picture, as the latents of an autoencoder.
    """
    if images.ndim > 2 and images.shape[-3] not in (1, 3):
        raise UserError(f"this network makes maps of {images.shape[-3]} channels: only 1 or 3 make a picture")
    return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)
