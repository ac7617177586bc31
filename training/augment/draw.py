"""What every augmentation offers: a draw that can be applied more than once."""

from typing import Protocol

import torch


class Draw(Protocol):
    """The random choices of one augmentation for N images. All batches of the shape that it was drawn for are varied
    alike, whichever it is applied to first: the levels of one picture, or both sides of a finite difference."""

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """Images [N, C, H, W] in [-1, 1] -> the same shape. Draws nothing."""


class Augmentation(Protocol):
    """Random variations of images, each image its own."""

    def draw(self, like: torch.Tensor) -> Draw:
        """Random choices for images [N, C, H, W] of `like`'s shape, type and device, from the device's default
        generator."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Images [N, C, H, W] -> the same shape: a fresh draw, applied once."""
