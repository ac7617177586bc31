"""GAT discriminator (arXiv 2509.24935): a vision transformer with a class token on
all levels of a picture at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from dnnlib.config import Side, Width
from dnnlib.errors import UserError
from training.networks.registry import DiscriminatorConfig, register
from training.networks.shared.discriminator import Discriminator
from training.networks.shared.gat import LEVELS, GATSizes, LabelEmbedding, grid_size
from training.networks.shared.transformer import (
    Attention,
    EqualLinear,
    Linear,
    RMSNorm,
    Rotary,
    SwiGLU,
    position_embedding,
)

LAYER_SCALE = 0.1  # initial scale of what a block adds (Touvron et al. 2021, "Going deeper with Image Transformers")


@dataclass
class GATDiscriminatorConfig(GATSizes, DiscriminatorConfig):
    """GAT discriminator."""

    label_dim: Side = 2048  # width in which the class token and the label are compared
    feature_dim: Width = 0  # width of the features to be aligned with an encoder's (DINOv2 ViT-B: 768), 0: no such head
    feature_hidden: Side = 2048  # hidden width of that head


class DiscriminatorBlock(nn.Module):
    """Tokens [N, L, C] plus attention, plus feed-forward layer, each with a learned scale per channel."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.attn, self.mlp = Attention(width, heads), SwiGLU(width)
        self.scale1 = nn.Parameter(torch.full([width], LAYER_SCALE))
        self.scale2 = nn.Parameter(torch.full([width], LAYER_SCALE))

    def forward(self, x: torch.Tensor, rotary: Rotary) -> torch.Tensor:
        x = x + self.scale1.to(x.dtype) * self.attn(self.norm1(x), rotary)
        return x + self.scale2.to(x.dtype) * self.mlp(self.norm2(x))


class FeatureHead(nn.Module):
    """Tokens [N, L, C] -> features [N, L, feature_dim]."""

    def __init__(self, width: int, hidden: int, feature_dim: int):
        super().__init__()
        self.fc0, self.fc1, self.fc2 = Linear(width, hidden), Linear(hidden, hidden), Linear(hidden, feature_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.silu(self.fc1(F.silu(self.fc0(x)))))


@register("gat_discriminator", GATDiscriminatorConfig)
class GATDiscriminator(Discriminator):
    """Levels, each [N, C, H, W], and labels [N, c_dim] -> logits [N, 1]. A single one, of a real
    picture or from a generator without levels, stands for all."""

    takes_levels = True
    pos_embedding: torch.Tensor

    def __init__(self, cfg: GATDiscriminatorConfig):
        super().__init__(cfg)
        self.grid_size = size = grid_size(cfg)
        self.patch_embed = Linear(LEVELS * cfg.img_channels * cfg.patch**2, cfg.width)
        self.cls_token = nn.Parameter(torch.randn(1, 1, cfg.width) * 0.02)
        self.blocks = nn.ModuleList(DiscriminatorBlock(cfg.width, cfg.heads) for _ in range(cfg.depth))
        self.norm = RMSNorm(cfg.width)
        self.project = Linear(cfg.width, cfg.label_dim)
        self.embed = LabelEmbedding(cfg.c_dim, cfg.label_dim)
        self.embed_fc0 = EqualLinear(cfg.label_dim, cfg.label_dim)
        self.embed_fc1 = EqualLinear(cfg.label_dim, cfg.label_dim)
        self.feature_head = FeatureHead(cfg.width, cfg.feature_hidden, cfg.feature_dim) if cfg.feature_dim else None
        self.rotary = Rotary(size, cfg.width // cfg.heads, unturned=1)
        self.register_buffer("pos_embedding", position_embedding(size, cfg.width), persistent=False)

    def resolution_modules(self) -> list[list[nn.Module]]:
        """As Discriminator.resolution_modules. There is one resolution; what would be below it is never halved."""
        return [[], list(self.blocks)]

    def forward(self, images: torch.Tensor | Sequence[torch.Tensor], c: torch.Tensor | None = None) -> torch.Tensor:
        return self._logits(self._tokens(images), c)

    def logits_and_features(
        self, images: torch.Tensor | Sequence[torch.Tensor], c: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits [N, 1], features of the class token [N, feature_dim] and of the grid's tokens [N, rows * columns,
        feature_dim]. UserError without a feature head."""
        if self.feature_head is None:
            raise UserError("this discriminator has no feature head: set D.feature_dim to the encoder's width")
        x = self._tokens(images)
        features = self.feature_head(x)
        return self._logits(x, c), features[:, 0], features[:, 1:]

    def _tokens(self, images: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
        """The last block's tokens [N, 1 + rows * columns, width], the class token first."""
        levels = [images] if isinstance(images, torch.Tensor) else list(images)
        levels = levels * LEVELS if len(levels) == 1 else levels
        if len(levels) != LEVELS:
            raise UserError(f"gat_discriminator wants {LEVELS} levels of a picture or one, not {len(levels)}")
        patches = F.unfold(torch.cat(levels, dim=1), self.cfg.patch, stride=self.cfg.patch)  # type: ignore[attr-defined]
        x = self.patch_embed(patches.transpose(1, 2)) + self.pos_embedding
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        for block in self.blocks:
            if self.cfg.checkpoint and torch.is_grad_enabled():  # type: ignore[attr-defined]
                x = checkpoint(block, x, self.rotary, use_reentrant=False)
            else:
                x = block(x, self.rotary)
        return x.to(self.pos_embedding.dtype)

    def _logits(self, x: torch.Tensor, c: torch.Tensor | None) -> torch.Tensor:
        label = self.embed_fc1(F.silu(self.embed_fc0(self.embed(c, x.shape[0]))))
        return (self.project(self.norm(x[:, 0])) * label).sum(dim=1, keepdim=True)
