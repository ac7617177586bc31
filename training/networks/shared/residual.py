"""R3GAN's building blocks, for generator and discriminator (Huang et al. 2024, "The GAN is dead; long live the GAN! A
Modern GAN Baseline", section 3): weights drawn at their final scale, no normalisation, biases in activations only."""

import math
from dataclasses import dataclass, field
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import nn

from dnnlib.config import Layers, Range, Side
from dnnlib.errors import UserError
from torch_utils.ops.bias_act import bias_act
from training.networks.registry import NetworkConfig

ACTIVATION_GAIN = math.sqrt(2 / (1 + 0.2**2))  # keeps the variance through a leaky ReLU of slope 0.2 (He et al. 2015)


@dataclass
class ResidualConfig(NetworkConfig):
    """Sizes per stage, from the lowest resolution up, each stage twice the last one's; by default those for 32x32."""

    widths: list[Side] = field(default_factory=lambda: [768, 768, 768, 768])  # channels
    blocks: list[Layers] = field(default_factory=lambda: [2, 2, 2, 2])  # residual blocks
    groups: list[Side] = field(default_factory=lambda: [96, 96, 96, 96])  # of the grouped convolution in each block
    expansion: Annotated[int, Range(1, 64)] = 2  # channels inside a block, in multiples of the width
    kernel_size: Annotated[int, Range(1, 255)] = 3  # of the grouped convolution


class PlainLinear(nn.Module):
    """[N, in] -> [N, out], without bias; weight ~ N(0, gain^2 / in)."""

    def __init__(self, in_features: int, out_features: int, gain: float = 1.0):
        super().__init__()
        self.weight = plain_weight(out_features, in_features, gain=gain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class PlainConv2d(nn.Module):
    """[N, in, H, W] -> [N, out, H, W], without bias, in the precision of x; weight ~ N(0, gain^2 / fan-in)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1, groups: int = 1, gain: float = 1.0):
        super().__init__()
        self.groups, self.padding = groups, kernel_size // 2
        self.weight = plain_weight(out_channels, in_channels // groups, kernel_size, kernel_size, gain=gain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight.to(x.dtype), padding=self.padding, groups=self.groups)


class ResidualBlock(nn.Module):
    """[N, C, H, W] plus what 1x1, grouped KxK and 1x1 convolutions make of it."""

    def __init__(
        self,
        cfg: ResidualConfig,
        stage: int,  # whose width and groups the block has
    ):
        super().__init__()
        width, groups = cfg.widths[stage], cfg.groups[stage]
        inner = width * cfg.expansion
        # With 0 in the last one, the sum over all blocks keeps its variance when training starts.
        gain = ACTIVATION_GAIN * sum(cfg.blocks) ** -0.25
        self.conv1 = PlainConv2d(width, inner, gain=gain)
        self.bias1 = nn.Parameter(torch.zeros(inner))
        self.conv2 = PlainConv2d(inner, inner, cfg.kernel_size, groups, gain=gain)
        self.bias2 = nn.Parameter(torch.zeros(inner))
        self.conv3 = PlainConv2d(inner, width, gain=0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = bias_act(self.conv1(x), self.bias1.to(x.dtype), act="lrelu", gain=1)
        y = bias_act(self.conv2(y), self.bias2.to(x.dtype), act="lrelu", gain=1)
        return x + self.conv3(y)


def plain_weight(*shape: int, gain: float = 1.0) -> nn.Parameter:
    """A weight [out, in, ...] ~ N(0, gain^2 / fan-in)."""
    return nn.Parameter(torch.randn(*shape) * (gain / math.sqrt(math.prod(shape[1:]))))


def start_size(cfg: ResidualConfig) -> tuple[int, int]:
    """(height, width) of the lowest stage. UserError where the lists, groups and the resolution don't go together."""
    stages = len(cfg.widths)
    for name, values in (("widths", cfg.widths), ("blocks", cfg.blocks), ("groups", cfg.groups)):
        if not values or len(values) != stages or min(values) < 1:
            raise UserError(f"{cfg.kind}: {name} wants {stages or 'some'} positive values, one per stage, got {values}")
    for width, groups in zip(cfg.widths, cfg.groups):
        if width * cfg.expansion % groups:
            raise UserError(f"{cfg.kind}: {width * cfg.expansion} channels can't be split into {groups} groups")
    if cfg.expansion < 1 or cfg.kernel_size % 2 == 0:
        raise UserError(f"{cfg.kind}: expansion must be at least 1 and kernel_size odd")
    height, width = cfg.img_resolution
    factor = 2 ** (stages - 1)
    if height % factor or width % factor:
        raise UserError(f"{cfg.kind}: {stages} stages want sides that are multiples of {factor}, not {height}x{width}")
    return height // factor, width // factor
