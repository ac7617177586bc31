"""What all discriminators have in common: what they take, the projection of labels, the modules of each resolution."""

import math

import torch
from torch import nn

from training.networks.registry import DiscriminatorConfig


class Discriminator(nn.Module):
    """Base class. A subclass calls `super().__init__(cfg)` and provides `forward(images, c)`: images [N, C, H, W] in
    [-1, 1], or a list of them where `takes_levels` is set, and labels [N, c_dim] -> logits [N, 1], float32."""

    cfg: DiscriminatorConfig
    takes_levels = False  # True: `forward` gets all of a generator's output levels, coarsest first, not just the last

    def __init__(self, cfg: DiscriminatorConfig):
        super().__init__()
        self.cfg = cfg
        self.c_dim, self.img_channels = cfg.c_dim, cfg.img_channels

    def resolution_modules(self) -> list[list[nn.Module]]:
        """Per resolution, from the lowest up: the modules whose first two arguments are features and images and that
        compute in their precision. Without any a discriminator trains in float32 only."""
        return []


def project_label(y: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
    """Features and an embedded label, both [N, width] -> logits [N, 1]: their inner product over sqrt(width)
    (Miyato & Koyama 2018, "cGANs with Projection Discriminator"; the divisor is StyleGAN2-ADA's)."""
    return (y * embedding).sum(dim=1, keepdim=True) / math.sqrt(embedding.shape[1])
