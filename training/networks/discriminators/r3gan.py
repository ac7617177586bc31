"""R3GAN discriminator (Huang et al. 2024, "The GAN is dead; long live the GAN! A Modern GAN Baseline"): the generator's
blocks in reverse, without any statistics over the batch."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from dnnlib.config import Side
from torch_utils.ops.upfirdn2d import downsample2d, setup_filter
from training.networks.registry import DiscriminatorConfig, register
from training.networks.shared.discriminator import Discriminator
from training.networks.shared.layers import RESAMPLE_TAPS
from training.networks.shared.residual import (
    PlainConv2d,
    PlainLinear,
    ResidualBlock,
    ResidualConfig,
    plain_weight,
    start_size,
)


@dataclass
class R3GANDiscriminatorConfig(ResidualConfig, DiscriminatorConfig):
    """R3GAN discriminator."""

    label_dim: Side | None = None  # width in which features and label are compared, None: the lowest stage's


class DiscriminatorStage(nn.Module):
    """One resolution: [N, C, H, W] -> [N, C_after, H / 2, W / 2]; the lowest one keeps its size."""

    resample_filter: torch.Tensor

    def __init__(self, cfg: R3GANDiscriminatorConfig, stage: int):
        super().__init__()
        self.is_lowest = stage == 0
        width, after = cfg.widths[stage], cfg.widths[max(stage - 1, 0)]
        self.blocks = nn.ModuleList(ResidualBlock(cfg, stage) for _ in range(cfg.blocks[stage]))
        self.change = PlainConv2d(width, after) if width != after else None
        self.register_buffer("resample_filter", setup_filter(RESAMPLE_TAPS), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        if not self.is_lowest:
            x = downsample2d(x, self.resample_filter)
        return x if self.change is None else self.change(x)


class DiscriminativeBasis(nn.Module):
    """Map [N, C, h, w] -> [N, out]: every channel's product with a learned picture, then a linear layer."""

    def __init__(self, width: int, size: tuple[int, int], out_features: int):
        super().__init__()
        self.basis = plain_weight(width, 1, *size)
        self.linear = PlainLinear(width, out_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.conv2d(x, self.basis.to(x.dtype), groups=len(self.basis))
        return self.linear(x.flatten(1))


@register("r3gan_discriminator", R3GANDiscriminatorConfig)
class R3GANDiscriminator(Discriminator):
    """Images [N, C, H, W] and labels [N, c_dim] -> logits [N, 1]; `stages` from the lowest resolution up."""

    def __init__(self, cfg: R3GANDiscriminatorConfig):
        super().__init__(cfg)
        size = start_size(cfg)
        self.from_rgb = PlainConv2d(cfg.img_channels, cfg.widths[-1])
        self.stages = nn.ModuleList(DiscriminatorStage(cfg, s) for s in range(len(cfg.widths)))
        label_dim = (cfg.label_dim or cfg.widths[0]) if cfg.c_dim else 0
        self.basis = DiscriminativeBasis(cfg.widths[0], size, label_dim or 1)
        self.embed = PlainLinear(cfg.c_dim, label_dim, gain=label_dim**-0.5) if label_dim else None

    def resolution_modules(self) -> list[list[nn.Module]]:
        """As Discriminator.resolution_modules."""
        return [[stage] for stage in self.stages]

    def forward(self, img: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        x = self.from_rgb(img)
        for stage in reversed(self.stages):  # type: ignore[call-overload]
            x = stage(x)
        y = self.basis(x.to(img.dtype))
        if self.embed is None:
            return y
        assert c is not None
        return (y * self.embed(c)).sum(dim=1, keepdim=True)
