"""An augmentation is drawn once and applied as often as needed: to every level of a picture, to both ends of a
finite difference."""

from typing import Protocol

import torch


class Draw(Protocol):
    """One random choice for each image of a batch."""

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """Images [N, C, H, W] of the batch that was drawn for -> the same, augmented; differentiable."""


class Augmentation(Protocol):
    """What pictures pass before the discriminator sees them."""

    def draw(self, like: torch.Tensor) -> Draw:
        """A draw for a batch such as `like` [N, C, H, W], from torch's default generator."""


class NoAugmentation:
    """Leaves pictures as they are; its own draw."""

    def draw(self, like: torch.Tensor) -> "NoAugmentation":
        return self

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        return images
