"""What every augmentation offers: a draw that can be applied more than once."""

from typing import Protocol

import torch


class Draw(Protocol):
    """The random choices of one augmentation for N images. Whatever it is applied to is varied alike: the levels of one
    picture, both sides of a finite difference."""

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """Images [N, C, H, W] in [-1, 1] -> the same shape, differentiable. Draws nothing. Images of another size
        than it was drawn for, where the augmentation takes them, move in proportion."""

    def moved(self, images: torch.Tensor) -> torch.Tensor:
        """The same, but only what moves pixels: nothing that changes colours or blanks a part."""


class Augmentation(Protocol):
    """Random variations of images, each image its own: what pictures pass before the discriminator sees them."""

    def draw(self, like: torch.Tensor) -> Draw:
        """Random choices for images [N, C, H, W] of `like`'s shape, type and device, from the device's default
        generator."""


class NoAugmentation:
    """Leaves pictures as they are; its own draw."""

    def draw(self, like: torch.Tensor) -> "NoAugmentation":
        return self

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        return images

    def moved(self, images: torch.Tensor) -> torch.Tensor:
        return images
