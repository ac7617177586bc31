"""What GAT's generator and discriminator share (arXiv 2509.24935): sizes, classes."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from dnnlib.config import Layers, Side
from dnnlib.errors import UserError
from training.networks.registry import NetworkConfig
from training.networks.shared.transformer import Size

LEVELS = 4  # outputs of the generator, from coarse to fine, all of full size


class ModelSize(NamedTuple):
    """One of the paper's sizes."""

    depth: int
    width: int
    heads: int


MODEL_SIZES = {
    "s": ModelSize(12, 384, 6),
    "b": ModelSize(12, 768, 12),
    "l": ModelSize(24, 1024, 16),
    "xl": ModelSize(28, 1152, 16),
}


@dataclass
class GATSizes(NetworkConfig):
    """Sizes of a GAT network; by default GAT-S/2."""

    patch: Side = 2  # side of the square of pixels (or latents) that a token stands for
    depth: Layers = 12  # transformer blocks
    width: Side = 384  # channels of a token
    heads: Side = 6  # attention heads per block
    checkpoint: bool = False  # compute blocks again in the backward pass instead of keeping what is inside them


def grid_size(cfg: GATSizes) -> Size:
    """(rows, columns) of tokens. UserError where the sizes don't go together."""
    height, width = cfg.img_resolution
    if min(cfg.patch, cfg.depth, cfg.width, cfg.heads) < 1:
        raise UserError(f"{cfg.kind}: patch, depth, width and heads must be positive")
    if height % cfg.patch or width % cfg.patch:
        raise UserError(f"{cfg.kind}: {height}x{width} can't be cut into patches of {cfg.patch}x{cfg.patch}")
    if cfg.width % cfg.heads or cfg.width // cfg.heads % 4:
        raise UserError(f"{cfg.kind}: width {cfg.width} over {cfg.heads} heads must give each a multiple of 4 channels")
    return height // cfg.patch, width // cfg.patch


class LabelEmbedding(nn.Module):
    """Label [N, c_dim] -> vector [N, width]; without labels everything is of one class."""

    def __init__(self, c_dim: int, width: int):
        super().__init__()
        self.c_dim = c_dim
        self.weight = nn.Parameter(torch.randn(max(c_dim, 1), width) * 0.02)

    def forward(self, c: torch.Tensor | None, n: int) -> torch.Tensor:
        """For `n` images; `c` is not read where there are no labels."""
        return of_class(self.weight, c if self.c_dim else None, n)


def of_class(rows: torch.Tensor, c: torch.Tensor | None, n: int) -> torch.Tensor:
    """The row of each label's class: rows [classes, width], c [N, classes] -> [N, width]; the first row without c."""
    return rows[:1].expand(n, -1) if c is None else c.to(rows.dtype) @ rows
