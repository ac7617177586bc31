"""StyleGAN2 discriminator: orig, skip and resnet forms, conditional, any size that halves a few times
(Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", section 4 and appendix B)."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import nn

from dnnlib.config import Count, Layers, Range, Side, Weight
from dnnlib.errors import UserError
from torch_utils.ops.upfirdn2d import downsample2d, setup_filter
from training.networks.registry import DiscriminatorConfig, register
from training.networks.shared.discriminator import Discriminator, project_label
from training.networks.shared.layers import (
    RESAMPLE_TAPS,
    EqualizedConv2d,
    FullyConnected,
    at_least_float32,
    channels_at,
    minibatch_std,
)
from training.networks.shared.mapping import MappingNetwork


@dataclass
class StyleGAN2DiscriminatorConfig(DiscriminatorConfig):
    """StyleGAN2 discriminator. A resolution r has min(channel_base // r, channel_max) channels."""

    architecture: Literal["orig", "skip", "resnet"] = "resnet"
    channel_base: Count = 32768
    channel_max: Side = 512
    conv_clamp: Weight | None = 256  # clamp of convolution outputs, in units of the layer's gain
    mbstd_group_size: Count | None = 4  # images per group of the minibatch standard deviation, None: the whole batch
    mbstd_channels: Annotated[int, Range(0, 2**16)] = 1  # channels it adds, 0: none
    cmap_dim: Side | None = None  # label mapping's width, None: the last resolution's channels
    mapping_layers: Layers = 8  # of the label mapping
    freeze_layers: Layers = 0  # the first so many layers are not trained (Freeze-D, Mo et al. 2020)


class DiscriminatorBlock(nn.Module):
    """One resolution: two 3x3 convolutions, the second one halves the map."""

    resample_filter: torch.Tensor

    def __init__(self, cfg: StyleGAN2DiscriminatorConfig, in_channels: int, channels: int, out_channels: int):
        super().__init__()
        self.architecture = cfg.architecture
        reads_image = in_channels == 0 or cfg.architecture == "skip"
        self.fromrgb = _from_rgb(cfg, channels) if reads_image else None
        self.conv0 = EqualizedConv2d(channels, channels, 3, activation="lrelu", conv_clamp=cfg.conv_clamp)
        self.conv1 = EqualizedConv2d(channels, out_channels, 3, activation="lrelu", down=2, conv_clamp=cfg.conv_clamp)
        if cfg.architecture == "resnet":
            self.skip = EqualizedConv2d(channels, out_channels, 1, bias=False, down=2)
        self.register_buffer("resample_filter", setup_filter(RESAMPLE_TAPS), persistent=False)

    def forward(self, x: torch.Tensor | None, img: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Features [N, C, H, W] (None at the top) and the image, where it is still read; both at half size after."""
        if self.fromrgb is not None:
            assert img is not None
            y = self.fromrgb(img)
            x = y if x is None else x + y
            img = downsample2d(img, self.resample_filter) if self.architecture == "skip" else None
        assert x is not None
        if self.architecture == "resnet":
            gain = math.sqrt(0.5)
            return self.skip(x, gain=gain) + self.conv1(self.conv0(x), gain=gain), img
        return self.conv1(self.conv0(x)), img


class DiscriminatorEpilogue(nn.Module):
    """Minibatch standard deviation, one convolution, two linear layers: [N, C, h, w] -> [N, 1 or cmap_dim]."""

    def __init__(self, cfg: StyleGAN2DiscriminatorConfig, channels: int, size: tuple[int, int], out_features: int):
        super().__init__()
        self.group_size, self.mbstd_channels = cfg.mbstd_group_size, cfg.mbstd_channels
        self.fromrgb = _from_rgb(cfg, channels) if cfg.architecture == "skip" else None
        features = channels + cfg.mbstd_channels
        self.conv = EqualizedConv2d(features, channels, 3, activation="lrelu", conv_clamp=cfg.conv_clamp)
        self.fc = FullyConnected(channels * size[0] * size[1], channels, activation="lrelu")
        self.out = FullyConnected(channels, out_features)

    def forward(self, x: torch.Tensor, img: torch.Tensor | None) -> torch.Tensor:
        if self.fromrgb is not None:
            assert img is not None
            x = x + self.fromrgb(img)
        if self.mbstd_channels:
            x = minibatch_std(x, self.group_size, self.mbstd_channels)
        y = self.fc(self.conv(x).flatten(1))
        return self.out(y.to(at_least_float32(y.dtype)))


@register("stylegan2_discriminator", StyleGAN2DiscriminatorConfig)
class StyleGAN2Discriminator(Discriminator):
    """Images [N, C, H, W] and labels [N, c_dim] -> logits [N, 1]; blocks are named `b{height}`, the epilogue `b4`."""

    def __init__(self, cfg: StyleGAN2DiscriminatorConfig):
        super().__init__(cfg)
        sizes = halvings(cfg.img_resolution)
        self.block_names = [f"b{size[0]}" for size in sizes[:-1]]
        widths = [channels_at(size, cfg.channel_base, cfg.channel_max) for size in sizes]
        for i, name in enumerate(self.block_names):
            self.add_module(name, DiscriminatorBlock(cfg, widths[i] if i else 0, widths[i], widths[i + 1]))
        cmap_dim = (cfg.cmap_dim or widths[-1]) if cfg.c_dim else 0
        self.b4 = DiscriminatorEpilogue(cfg, widths[-1], sizes[-1], cmap_dim or 1)
        if cfg.c_dim:
            self.mapping = MappingNetwork(0, cfg.c_dim, cmap_dim, num_ws=None, num_layers=cfg.mapping_layers)
        self._freeze(cfg.freeze_layers)

    def resolution_modules(self) -> list[list[nn.Module]]:
        """Per resolution, from the lowest up: the modules that compute in the precision of their inputs."""
        return [[self.get_submodule(name)] for name in ["b4", *reversed(self.block_names)]]

    def forward(self, img: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        x, rest = None, img
        for name in self.block_names:
            x, rest = self.get_submodule(name)(x, rest)
        y = self.b4(x, rest)
        return project_label(y, self.mapping(None, c)) if self.c_dim else y

    def _freeze(self, count: int) -> None:
        layers = [m for name in self.block_names for m in self.get_submodule(name).children()]
        for layer in layers[:count]:
            layer.requires_grad_(False)


def _from_rgb(cfg: StyleGAN2DiscriminatorConfig, channels: int) -> EqualizedConv2d:
    return EqualizedConv2d(cfg.img_channels, channels, 1, activation="lrelu", conv_clamp=cfg.conv_clamp)


def halvings(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Map sizes from the image down: halved while both sides are even and above 4. UserError if it never halves."""
    sizes = [(size[0], size[1])]
    while all(side % 2 == 0 and side > 4 for side in sizes[-1]):
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    if len(sizes) < 2 or max(sizes[-1]) > 16:
        raise UserError(
            f"the discriminator can't halve {size[0]}x{size[1]} down to 16 pixels or fewer: "
            "choose sides that are multiples of a power of two"
        )
    return sizes
