"""R3GAN generator (Huang et al. 2024, "The GAN is dead; long live the GAN! A Modern GAN Baseline"): a latent, a learned
basis of the lowest resolution, residual blocks. No mapping network and no styles: its one style is the latent itself,
with the label's embedding."""

from dataclasses import dataclass

import torch
from torch import nn

from dnnlib.config import Layers, Side, Width
from dnnlib.errors import UserError
from torch_utils.ops.upfirdn2d import setup_filter, upsample2d
from training.networks.registry import GeneratorConfig, register
from training.networks.shared.generator import Generator, NoiseMode
from training.networks.shared.layers import RESAMPLE_TAPS
from training.networks.shared.mapping import Mapping
from training.networks.shared.residual import PlainConv2d, PlainLinear, ResidualBlock, ResidualConfig, start_size


@dataclass
class R3GANConfig(ResidualConfig, GeneratorConfig):
    """R3GAN generator."""

    z_dim: Side = 64  # latent dimension; used as it is drawn, without normalisation
    w_dim: Width = 0  # stays 0: a style is the latent and the embedded label
    mapping_layers: Layers = 0  # stays 0: there is no mapping network
    label_dim: Side = 64  # width of the label's embedding


class LatentMapping(Mapping):
    """Latent [N, z_dim], and behind it the embedded label, as the only style [N, 1, w_dim]."""

    w_avg = None

    def __init__(self, z_dim: int, c_dim: int, label_dim: int):
        super().__init__()
        self.embed = PlainLinear(c_dim, label_dim) if c_dim else None
        self.w_dim = z_dim + (label_dim if c_dim else 0)

    def forward(
        self,
        z: torch.Tensor | None,
        c: torch.Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> torch.Tensor:
        """As Mapping.forward. UserError for a truncation: there is no average style to move to."""
        if truncation_psi != 1:
            raise UserError("this network has no average style, so its images can't be truncated: leave --trunc at 1")
        assert z is not None
        if self.embed is None:
            return z.float().unsqueeze(1)
        assert c is not None
        return torch.cat([z.float(), self.embed(c.float())], dim=1).unsqueeze(1)

    def update_w_avg(self, w_mean: torch.Tensor) -> None:
        """Nothing: the latents' mean is 0 anyway."""


class GenerativeBasis(nn.Module):
    """Style [N, w_dim] -> map [N, C, h, w]: every channel a learned picture times a linear function of the style."""

    def __init__(self, w_dim: int, width: int, size: tuple[int, int]):
        super().__init__()
        self.basis = nn.Parameter(torch.randn(width, *size))
        self.linear = PlainLinear(w_dim, width)

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return self.basis * self.linear(w)[:, :, None, None]


class GeneratorStage(nn.Module):
    """One resolution: [N, C_before, H / 2, W / 2] -> [N, C, H, W]; the lowest one keeps its input's size."""

    resample_filter: torch.Tensor

    def __init__(self, cfg: R3GANConfig, stage: int):
        super().__init__()
        self.is_lowest = stage == 0
        before, width = cfg.widths[max(stage - 1, 0)], cfg.widths[stage]
        self.change = PlainConv2d(before, width) if before != width else None
        self.blocks = nn.ModuleList(ResidualBlock(cfg, stage) for _ in range(cfg.blocks[stage]))
        self.register_buffer("resample_filter", setup_filter(RESAMPLE_TAPS), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.change is not None:
            x = self.change(x)
        if not self.is_lowest:
            x = upsample2d(x, self.resample_filter)
        for block in self.blocks:
            x = block(x)
        return x


class SynthesisNetwork(nn.Module):
    """Styles ws [N, 1 or more, w_dim], of which the first is read -> images [N, C, H, W]. There is no noise."""

    def __init__(self, cfg: R3GANConfig, w_dim: int):
        super().__init__()
        self.basis = GenerativeBasis(w_dim, cfg.widths[0], start_size(cfg))
        self.stages = nn.ModuleList(GeneratorStage(cfg, s) for s in range(len(cfg.widths)))
        self.to_rgb = PlainConv2d(cfg.widths[-1], cfg.img_channels)

    def resolution_modules(self) -> list[list[nn.Module]]:
        """As Generator.resolution_modules."""
        return [[stage] for stage in self.stages]

    def forward(self, ws: torch.Tensor, noise_mode: NoiseMode = "random") -> torch.Tensor:
        """Images float32, whatever precision the stages have."""
        x = self.basis(ws[:, 0])
        for stage in self.stages:
            x = stage(x)
        return self.to_rgb(x).to(ws.dtype)


@register("r3gan", R3GANConfig)
class R3GANGenerator(Generator):
    """Latents [N, z_dim] and labels [N, c_dim] -> images [N, C, H, W]."""

    def __init__(self, cfg: R3GANConfig):
        if cfg.w_dim or cfg.mapping_layers:
            raise UserError("r3gan has neither mapping network nor styles: set G.w_dim=0 and G.mapping_layers=0")
        start_size(cfg)
        mapping = LatentMapping(cfg.z_dim, cfg.c_dim, cfg.label_dim)
        super().__init__(cfg, num_ws=1, mapping=mapping)
        self.w_dim = mapping.w_dim
        self.synthesis = SynthesisNetwork(cfg, mapping.w_dim)
