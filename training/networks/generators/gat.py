"""GAT generator (arXiv 2509.24935): a transformer whose blocks are modulated by a
style, on a fixed grid of positions, with four outputs of full size of which each adds to the one before."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from dnnlib.config import Layers, Side, Width
from dnnlib.errors import UserError
from training.networks.registry import GeneratorConfig, register
from training.networks.shared.gat import LEVELS, GATSizes, LabelEmbedding, grid_size, of_class
from training.networks.shared.generator import Generator, NoiseMode
from training.networks.shared.layers import normalize_2nd_moment
from training.networks.shared.mapping import Mapping, truncate
from training.networks.shared.transformer import (
    Attention,
    EqualLinear,
    Linear,
    Rotary,
    Size,
    SwiGLU,
    position_embedding,
    rms_normalize,
)

MODULATION_GAIN = 0.1  # of the layers that turn a style into scales and gates: blocks start near the identity


@dataclass
class GATConfig(GATSizes, GeneratorConfig):
    """GAT generator."""

    z_dim: Side = 64  # latent dimension, and that of a label's embedding
    w_dim: Width = 0  # style dimension, 0: the width
    mapping_layers: Layers = 2


class ClassMapping(Mapping):
    """Embedded label and latent, both normalised -> layers with SiLU between -> one style for all blocks. The average
    style is that of each class."""

    w_avg: torch.Tensor

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int,
        num_layers: int,
        w_avg_beta: float = 0.995,  # decay of a class's average per step in which the class occurs
    ):
        super().__init__()
        self.c_dim, self.num_ws, self.w_avg_beta = c_dim, num_ws, w_avg_beta
        self.guidance = 1.0 if c_dim else None  # without classes there is nothing to move away from
        self.embed = LabelEmbedding(c_dim, z_dim)
        widths = [2 * z_dim] + [w_dim] * num_layers
        self.layers = nn.ModuleList(EqualLinear(i, o) for i, o in zip(widths, widths[1:]))
        self.register_buffer("w_avg", torch.zeros(max(c_dim, 1), w_dim))

    def forward(
        self,
        z: torch.Tensor | None,
        c: torch.Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        guidance: float | None = None,  # 1: none; above, styles move away from the mean over all classes; None: as set
    ) -> torch.Tensor:
        """Styles [N, num_ws, w_dim]; truncation moves them towards the average style of their class."""
        assert z is not None
        label = normalize_2nd_moment(self.embed(c, z.shape[0]))
        w = self._layers(torch.cat([label, normalize_2nd_moment(z.float())], dim=1))
        guidance = self.guidance if guidance is None else guidance
        if guidance not in (None, 1):
            w = self._without_class(z.float()).lerp(w, guidance)
        center = of_class(self.w_avg, c if self.c_dim else None, z.shape[0])
        ws = w.unsqueeze(1).repeat(1, self.num_ws, 1)
        return truncate(ws, center.unsqueeze(1), truncation_psi, truncation_cutoff)

    def _layers(self, x: torch.Tensor) -> torch.Tensor:
        for i, layer in enumerate(self.layers):
            x = layer(F.silu(x) if i else x)
        return x

    def _without_class(self, z: torch.Tensor) -> torch.Tensor:
        """The mean of w over all classes, [N, w_dim]. As in the published program, the normalisation runs over the
        classes here, not over channels; a latent, the same for all of them, becomes its sign."""
        labels = normalize_2nd_moment(self.embed.weight.t()).t()
        signs = z * (z.square() + 1e-8).rsqrt()
        n, k = z.shape[0], labels.shape[0]
        pairs = torch.cat([labels.expand(n, -1, -1), signs[:, None].expand(-1, k, -1)], dim=2)
        return self._layers(pairs).mean(dim=1)

    @torch.no_grad()
    def update_w_avg(self, w_mean: torch.Tensor) -> None:
        """Moves the averages a step towards `w_mean` [classes, w_dim]; rows of NaN, of classes that did not occur in
        the batch, leave theirs as they are."""
        moved = w_mean.detach().view_as(self.w_avg).lerp(self.w_avg, self.w_avg_beta)
        self.w_avg.copy_(torch.where(moved.isnan().any(dim=1, keepdim=True), self.w_avg, moved))


class GeneratorBlock(nn.Module):
    """Tokens [N, L, C] plus attention, plus feed-forward layer; both scaled and gated by the style [N, w_dim]."""

    def __init__(self, width: int, heads: int, w_dim: int):
        super().__init__()
        self.attn = Attention(width, heads)
        self.mlp = SwiGLU(width)
        self.modulation = Linear(w_dim, 4 * width, gain=MODULATION_GAIN)

    def forward(self, x: torch.Tensor, w: torch.Tensor, rotary: Rotary) -> torch.Tensor:
        s1, g1, s2, g2 = self.modulation(F.silu(w)).to(x.dtype).unsqueeze(1).chunk(4, dim=2)
        x = x + g1 * self.attn(rms_normalize(x) * (1 + s1), rotary)
        return x + g2 * self.mlp(rms_normalize(x) * (1 + s2))


class OutputLayer(nn.Module):
    """Tokens [N, L, C] -> pixels of their patches [N, L, patch * patch * channels]."""

    def __init__(self, width: int, w_dim: int, out_features: int):
        super().__init__()
        self.modulation = Linear(w_dim, width, gain=MODULATION_GAIN)
        self.linear = Linear(width, out_features)

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        scale = self.modulation(F.silu(w)).to(x.dtype).unsqueeze(1)
        return self.linear(rms_normalize(x) * (1 + scale))


class SynthesisNetwork(nn.Module):
    """Styles ws [N, depth or more, w_dim], one per block -> images [N, C, H, W]. There is no noise."""

    pos_embedding: torch.Tensor

    def __init__(self, cfg: GATConfig, w_dim: int):
        super().__init__()
        self.size, self.patch, self.checkpoint = grid_size(cfg), cfg.patch, cfg.checkpoint
        self.blocks = nn.ModuleList(GeneratorBlock(cfg.width, cfg.heads, w_dim) for _ in range(cfg.depth))
        pixels = cfg.patch**2 * cfg.img_channels
        self.outputs = nn.ModuleList(OutputLayer(cfg.width, w_dim, pixels) for _ in range(LEVELS))
        self.rotary = Rotary(self.size, cfg.width // cfg.heads)
        self.register_buffer("pos_embedding", position_embedding(self.size, cfg.width), persistent=False)

    def resolution_modules(self) -> list[list[nn.Module]]:
        """As Generator.resolution_modules. There is one resolution; what would be below it is never halved."""
        return [[], [*self.blocks, *self.outputs]]

    def forward(self, ws: torch.Tensor, noise_mode: NoiseMode = "random") -> torch.Tensor:
        return self.levels(ws)[-1]

    def levels(self, ws: torch.Tensor) -> list[torch.Tensor]:
        """Four images [N, C, H, W], coarsest first, after each quarter of the blocks; float32 in any precision."""
        x = self.pos_embedding.to(ws.dtype).expand(ws.shape[0], -1, -1)
        quarter = len(self.blocks) // LEVELS
        levels: list[torch.Tensor] = []
        for i, (block, w) in enumerate(zip(self.blocks, ws.unbind(1))):
            x = self._run(block, x, w)
            if (i + 1) % quarter == 0:
                image = unpatchified(self.outputs[i // quarter](x, w).to(ws.dtype), self.size, self.patch)
                levels.append(levels[-1] + image if levels else image)
        return levels

    def _run(self, block: nn.Module, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        if self.checkpoint and torch.is_grad_enabled():
            return checkpoint(block, x, w, self.rotary, use_reentrant=False)
        return block(x, w, self.rotary)


def unpatchified(x: torch.Tensor, size: Size, patch: int) -> torch.Tensor:
    """Tokens [N, rows * columns, patch * patch * C], a patch's pixels in row-major order -> images [N, C, H, W]."""
    x = x.unflatten(2, (patch, patch, -1)).unflatten(1, size)  # [N, rows, columns, patch, patch, C]
    return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


@register("gat", GATConfig)
class GATGenerator(Generator):
    """Latents [N, z_dim] and labels [N, c_dim] -> images [N, C, H, W]."""

    num_levels = LEVELS

    def __init__(self, cfg: GATConfig):
        if cfg.depth < LEVELS or cfg.depth % LEVELS:
            raise UserError(f"gat: depth must be a multiple of {LEVELS}, one part per output level, not {cfg.depth}")
        grid_size(cfg)
        w_dim = cfg.w_dim or cfg.width
        if cfg.mapping_layers < 1:
            raise UserError("gat: mapping_layers must be at least 1")
        mapping = ClassMapping(cfg.z_dim, cfg.c_dim, w_dim, cfg.depth, cfg.mapping_layers)
        super().__init__(cfg, num_ws=cfg.depth, mapping=mapping)
        self.w_dim = w_dim
        self.synthesis = SynthesisNetwork(cfg, w_dim)

    def levels(self, ws: torch.Tensor, noise_mode: NoiseMode = "random") -> list[torch.Tensor]:
        return self.synthesis.levels(ws)  # type: ignore[attr-defined, operator]
