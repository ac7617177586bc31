"""Wavelet discriminator (Zhang et al. 2022, "StyleSwin", section 3.4; used by Walton et al. 2022, "StyleNAT").

It reads the image as Haar coefficients at every scale, because a plain discriminator overlooks blocking artefacts.

Tensor names are those of the official files, which also store constants (`dwt.*`, `iwt.*`, `*.kernel`) that ours
computes: `stored_official_name` tells which is which.
"""

import math
import re
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import nn

from dnnlib.config import Count, Factor, Layers, Side
from dnnlib.errors import UserError
from torch_utils.ops.bias_act import bias_act
from torch_utils.ops.upfirdn2d import downsample2d, setup_filter
from training.networks.discriminators.stylegan2 import halvings
from training.networks.registry import DiscriminatorConfig, register
from training.networks.shared.discriminator import Discriminator, project_label
from training.networks.shared.layers import RESAMPLE_TAPS, EqualizedConv2d, FullyConnected, minibatch_std
from training.networks.shared.mapping import MappingNetwork
from training.networks.shared.pixel_units import ValueRange, check_units, to_units
from training.networks.shared.spectral_norm import SpectralConv2d, SpectralLinear


@dataclass
class WaveletDiscriminatorConfig(DiscriminatorConfig):
    """Wavelet discriminator."""

    channel_multiplier: Factor = 2.0  # widths: 512 up to side 32, then 256, 128, ... times this
    channels: list[Side] | None = None  # widths per scale, from half the image's side down; None: by the rule above
    spectral_norm: bool = True  # spectral normalisation; otherwise equalised layers
    mbstd_group_size: Count = 4  # images per group of the minibatch standard deviation
    mapping_layers: Layers = 8  # of the label mapping
    input_norm: ValueRange = "imagenet"  # units that the weights are meant for; callers give [-1, 1]


class BiasLeakyReLU(nn.Module):
    """sqrt(2) * leaky_relu(x + bias), slope 0.2; channels on axis 1."""

    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return bias_act(x, self.bias.to(x.dtype), act="lrelu")


class FromRGB(nn.Module):
    """Image [N, C, 2h, 2w] -> features of its Haar coefficients [N, channels, h, w]."""

    def __init__(self, img_channels: int, channels: int, spectral: bool):
        super().__init__()
        self.conv = _conv(4 * img_channels, channels, 1, spectral)

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return self.conv(haar(img))


class ConvBlock(nn.Module):
    """Two 3x3 convolutions, the second one after a blur and with stride 2: [N, in, H, W] -> [N, out, H/2, W/2]."""

    def __init__(self, in_channels: int, out_channels: int, spectral: bool):
        super().__init__()
        self.conv1 = _conv(in_channels, in_channels, 3, spectral)
        self.conv2 = _conv(in_channels, out_channels, 3, spectral, down=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv2(self.conv1(x))


@register("wavelet_discriminator", WaveletDiscriminatorConfig)
class WaveletDiscriminator(Discriminator):
    """Images [N, C, H, W] in [-1, 1] and labels [N, c_dim] -> logits [N, 1].

    Labels enter as in StyleGAN2's discriminator (the papers have none): a projection on their mapping.
    """

    cfg: WaveletDiscriminatorConfig
    resample_filter: torch.Tensor

    def __init__(self, cfg: WaveletDiscriminatorConfig):
        super().__init__(cfg)
        check_units(cfg.input_norm, cfg.img_channels, "D.input_norm")
        sizes = halvings(cfg.img_resolution)[1:]
        widths = _widths(cfg, len(sizes))
        spectral = cfg.spectral_norm
        self.from_rgbs = nn.ModuleList(FromRGB(cfg.img_channels, w, spectral) for w in widths)
        self.convs = nn.ModuleList(ConvBlock(a, b, spectral) for a, b in zip(widths, widths[1:]))
        last, area = widths[-1], math.prod(sizes[-1])
        self.final_conv = _conv(last + 1, last, 3, spectral)
        features = last if cfg.c_dim else 1
        if spectral:
            linear = [SpectralLinear(last * area, last), BiasLeakyReLU(last), SpectralLinear(last, features)]
        else:
            linear = [FullyConnected(last * area, last, activation="lrelu"), FullyConnected(last, features)]
        self.final_linear = nn.Sequential(*linear)
        if cfg.c_dim:
            self.mapping = MappingNetwork(0, cfg.c_dim, last, num_ws=None, num_layers=cfg.mapping_layers)
        self.register_buffer("resample_filter", setup_filter(RESAMPLE_TAPS), persistent=False)

    def resolution_modules(self) -> list[list[nn.Module]]:
        """Per resolution, from the lowest up: the modules that compute in the precision of their inputs."""
        scales: list[list[nn.Module]] = [[from_rgb] for from_rgb in self.from_rgbs]
        for scale, conv in zip(scales, self.convs):
            scale.append(conv)
        scales[-1].append(self.final_conv)
        return scales[::-1]

    def forward(self, img: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        img = to_units(img, self.cfg.input_norm)
        x = self.from_rgbs[0](img)
        for conv, from_rgb in zip(self.convs, self.from_rgbs[1:]):
            # The Haar transform of the halved image is what the paper gets by inverting the previous coefficients.
            img = downsample2d(img, self.resample_filter)
            x = conv(x) + from_rgb(img)
        x = self.final_conv(minibatch_std(x, self.cfg.mbstd_group_size))
        y = self.final_linear(x.to(img.dtype).flatten(1))
        return project_label(y, self.mapping(None, c)) if self.c_dim else y


def haar(img: torch.Tensor) -> torch.Tensor:
    """One-level orthonormal Haar transform: [N, C, H, W] -> [N, 4C, H/2, W/2], band by band.

    Bands of a block [[a, b], [c, d]]: (a+b+c+d)/2, (a+b-c-d)/2, (a-b+c-d)/2, (a-b-c+d)/2.
    """
    a, b = img[..., 0::2, 0::2], img[..., 0::2, 1::2]
    c, d = img[..., 1::2, 0::2], img[..., 1::2, 1::2]
    above, below, left, right = a + b, c + d, a - b, c - d
    return torch.cat([above + below, above - below, left + right, left - right], dim=1) / 2


def stored_official_name(name: str) -> str | None:
    """Tensor name in an official file -> its name in our state_dict (the same), or None for a constant."""
    return None if re.search(r"(^|\.)(dwt|iwt)\.(ll|lh|hl|hh)$|\.kernel$", name) else name


def _conv(in_channels: int, out_channels: int, kernel_size: int, spectral: bool, down: int = 1) -> nn.Sequential:
    """Convolution, bias and activation. Official files count the blur as a layer of its own in front."""
    if spectral:
        conv: nn.Module = SpectralConv2d(in_channels, out_channels, kernel_size, down=down)
    else:
        conv = EqualizedConv2d(in_channels, out_channels, kernel_size, bias=False, down=down)
    first = down - 1
    return nn.Sequential(OrderedDict([(str(first), conv), (str(first + 1), BiasLeakyReLU(out_channels))]))


def _widths(cfg: WaveletDiscriminatorConfig, scales: int) -> list[int]:
    """Channels per scale. The first scale, at half the image's side, is as narrow as the whole image would be."""
    if cfg.channels is not None:
        if len(cfg.channels) != scales or min(cfg.channels) < 1:
            given = ",".join(map(str, cfg.channels))
            raise UserError(f"D.channels wants {scales} positive values, from half the image's side down, got {given}")
        return list(cfg.channels)
    side = max(cfg.img_resolution)
    return [width(side if i == 0 else side >> (i + 1), cfg.channel_multiplier) for i in range(scales)]


def width(side: int, multiplier: float) -> int:
    """Channels at a map side: 512 up to 32, halved with every doubling from there, times the multiplier."""
    doublings = max(math.ceil(math.log2(side / 32)), 0)
    return 512 if doublings == 0 else max(int(512 * multiplier) >> doublings, 1)
