"""Styleformer-C (Park & Kim, CVPR 2022, the section on high-resolution, multi-object scenes): Styleformer at the low
resolutions, where attention brings distant objects together, StyleGAN2's convolutions above, where it would be dear."""

from dataclasses import dataclass, field, fields

import torch
from torch import nn

from dnnlib.config import Count, Layers, Side
from dnnlib.errors import UserError
from training.networks.generators import styleformer, stylegan2
from training.networks.generators.styleformer import StyleformerConfig
from training.networks.generators.stylegan2 import StyleGAN2Config
from training.networks.registry import register
from training.networks.shared.generator import Generator, NoiseMode
from training.networks.shared.layers import channels_at


@dataclass
class StyleformerCConfig(StyleformerConfig):
    """Styleformer-C: `g_dict` and `num_layers` list the attention resolutions only, 8 to 32 by default; the
    resolutions above have min(channel_base // r, channel_max) channels."""

    g_dict: list[Side] = field(default_factory=lambda: [512, 512, 256])
    num_layers: list[Layers] = field(default_factory=lambda: [1, 2, 2])
    channel_base: Count = 16384
    channel_max: Side = 512


class SynthesisNetwork(nn.Module):
    """Styles ws [N, num_ws or more, w_dim] -> images [N, C, H, W]. Attention is in `attention.b{height}_{index}`,
    convolution in `b{height}`; one list of styles runs through both."""

    def __init__(self, cfg: StyleformerCConfig):
        super().__init__()
        size = attention_size(cfg)
        shared = {f.name: getattr(cfg, f.name) for f in fields(StyleformerConfig)}
        self.attention = styleformer.SynthesisNetwork(StyleformerConfig(**{**shared, "img_resolution": size}))
        conv_cfg = StyleGAN2Config(w_dim=cfg.w_dim, img_channels=cfg.img_channels, conv_clamp=cfg.conv_clamp)
        self.block_names = []
        channels = cfg.g_dict[-1]
        while size != tuple(cfg.img_resolution):
            size = (size[0] * 2, size[1] * 2)
            width = channels_at(size, cfg.channel_base, cfg.channel_max)
            self.block_names.append(f"b{size[0]}")
            self.add_module(f"b{size[0]}", stylegan2.SynthesisBlock(conv_cfg, channels, width, size))
            channels = width
        self.num_ws = self.attention.num_ws + 2 * len(self.block_names)

    def resolution_modules(self) -> list[list[nn.Module]]:
        """As Generator.resolution_modules."""
        convolutions = [self.get_submodule(name).layers() for name in self.block_names]  # type: ignore[operator]
        return self.attention.resolution_modules() + convolutions

    def forward(self, ws: torch.Tensor, noise_mode: NoiseMode = "random") -> torch.Tensor:
        """Surplus styles at the end of ws are ignored. Images float32 [N, C, H, W]."""
        x, img = self.attention.features_and_image(ws, noise_mode)
        # A block's ToRGB and the following block's first layer share a style, so blocks overlap by one.
        first = self.attention.num_ws - 1
        for name in self.block_names:
            x, img = self.get_submodule(name)(x, img, ws[:, first : first + 3], noise_mode)
            first += 2
        return img


@register("styleformer_c", StyleformerCConfig)
class StyleformerCGenerator(Generator):
    """The Styleformer-C generator."""

    def __init__(self, cfg: StyleformerCConfig):
        synthesis = SynthesisNetwork(cfg)
        super().__init__(cfg, synthesis.num_ws)
        self.synthesis = synthesis


def attention_size(cfg: StyleformerCConfig) -> tuple[int, int]:
    """(height, width) of the last attention resolution. UserError if doubling it never gives the image."""
    times = len(cfg.g_dict) - 1
    last = (cfg.start_resolution[0] << times, cfg.start_resolution[1] << times)
    goal = (cfg.img_resolution[0], cfg.img_resolution[1])
    if not any((last[0] << i, last[1] << i) == goal for i in range(1, 16)):
        raise UserError(
            f"Styleformer-C attends up to {last[0]}x{last[1]} and doubles that, which never gives {goal[0]}x{goal[1]}: "
            "change the length of g_dict, or --start-resolution"
        )
    return last
