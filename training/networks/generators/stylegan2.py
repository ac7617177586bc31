"""StyleGAN2 generator, the baseline (Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN")."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from dnnlib.config import Count, Side, Weight
from dnnlib.errors import UserError
from torch_utils.ops.bias_act import bias_act
from torch_utils.ops.conv2d_resample import conv2d_resample
from torch_utils.ops.upfirdn2d import setup_filter, upsample2d
from training.networks.registry import GeneratorConfig, register
from training.networks.shared.generator import Generator, NoiseMode
from training.networks.shared.layers import RESAMPLE_TAPS, FullyConnected, channels_at


@dataclass
class StyleGAN2Config(GeneratorConfig):
    """StyleGAN2 'skip' generator. A resolution r has min(channel_base // r, channel_max) channels."""

    channel_base: Count = 32768
    channel_max: Side = 512
    conv_clamp: Weight | None = 256  # clamp of convolution outputs


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, lrelu: [N, in, h, w] -> [N, out, h * up, w * up]."""

    noise_const: torch.Tensor
    resample_filter: torch.Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        size: tuple[int, int],  # (height, width) of the output
        up: int = 1,
        conv_clamp: float | None = None,
    ):
        super().__init__()
        self.up, self.conv_clamp, self.size = up, conv_clamp, size
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", torch.randn(size))
        self.register_buffer("resample_filter", setup_filter(RESAMPLE_TAPS), persistent=False)

    def forward(self, x: torch.Tensor, w: torch.Tensor, noise_mode: NoiseMode = "random") -> torch.Tensor:
        x = modulated_conv(x, self.weight, self.affine(w), self.up, self.resample_filter)
        if noise_mode == "random":
            x = x + torch.randn([x.shape[0], 1, *self.size], device=x.device, dtype=x.dtype) * self.noise_strength
        elif noise_mode == "const":
            x = x + (self.noise_const * self.noise_strength).to(x.dtype)
        return bias_act(x, self.bias.to(x.dtype), act="lrelu", clamp=self.conv_clamp)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution without demodulation: [N, C, H, W] -> [N, img_channels, H, W]."""

    def __init__(self, in_channels: int, img_channels: int, w_dim: int, conv_clamp: float | None = None):
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(img_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(img_channels))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        style = self.affine(w) * self.weight_gain
        rgb = F.conv2d(x * style.to(x.dtype)[:, :, None, None], self.weight.to(x.dtype))
        return bias_act(rgb.to(self.bias.dtype), self.bias, clamp=self.conv_clamp)


class SynthesisBlock(nn.Module):
    """One resolution: (the constant or conv0 with x2 upsampling), conv1, ToRGB added to the upsampled image."""

    resample_filter: torch.Tensor

    def __init__(self, cfg: StyleGAN2Config, in_channels: int, out_channels: int, size: tuple[int, int]):
        super().__init__()
        clamp = cfg.conv_clamp
        if in_channels == 0:
            self.const = nn.Parameter(torch.randn(out_channels, *size))
            self.conv0 = None
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, cfg.w_dim, size, up=2, conv_clamp=clamp)
        self.conv1 = SynthesisLayer(out_channels, out_channels, cfg.w_dim, size, conv_clamp=clamp)
        self.torgb = ToRGB(out_channels, cfg.img_channels, cfg.w_dim, conv_clamp=clamp)
        self.num_convs = 1 if self.conv0 is None else 2
        self.register_buffer("resample_filter", setup_filter(RESAMPLE_TAPS), persistent=False)

    def forward(
        self,
        x: torch.Tensor | None,  # [N, C, h, w], None in the first block
        img: torch.Tensor | None,  # the image so far, None in the first block
        ws: torch.Tensor,  # [N, num_convs + 1, w_dim]; ToRGB takes the last
        noise_mode: NoiseMode,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        styles = iter(ws.unbind(1))
        if self.conv0 is None:
            x = self.const.expand(ws.shape[0], -1, -1, -1)
        else:
            x = self.conv0(x, next(styles), noise_mode)
        x = self.conv1(x, next(styles), noise_mode)
        rgb = self.torgb(x, next(styles))
        return x, rgb if img is None else upsample2d(img, self.resample_filter) + rgb

    def layers(self) -> list[nn.Module]:
        """What takes the features x of this resolution, in order."""
        return [m for m in (self.conv0, self.conv1, self.torgb) if m is not None]


class SynthesisNetwork(nn.Module):
    """Styles ws [N, num_ws or more, w_dim] -> images [N, C, H, W]; blocks are named `b{height}`."""

    def __init__(self, cfg: StyleGAN2Config):
        super().__init__()
        sizes = _sizes(cfg.img_resolution)
        widths = [channels_at(size, cfg.channel_base, cfg.channel_max) for size in sizes]
        self.block_names = [f"b{size[0]}" for size in sizes]
        for i, name in enumerate(self.block_names):
            self.add_module(name, SynthesisBlock(cfg, widths[i - 1] if i else 0, widths[i], sizes[i]))
        self.num_ws = 2 * len(sizes)

    def resolution_modules(self) -> list[list[nn.Module]]:
        """As Generator.resolution_modules."""
        return [self.get_submodule(name).layers() for name in self.block_names]  # type: ignore[operator]

    def forward(self, ws: torch.Tensor, noise_mode: NoiseMode = "random") -> torch.Tensor:
        x = img = None
        first = 0
        for name in self.block_names:
            block = self.get_submodule(name)
            count = int(block.num_convs)  # type: ignore[arg-type]
            # A ToRGB shares the following block's first style, so blocks overlap by one.
            x, img = block(x, img, ws[:, first : first + count + 1], noise_mode)
            first += count
        assert img is not None
        return img


@register("stylegan2", StyleGAN2Config)
class StyleGAN2Generator(Generator):
    """The StyleGAN2 generator."""

    def __init__(self, cfg: StyleGAN2Config):
        synthesis = SynthesisNetwork(cfg)
        super().__init__(cfg, synthesis.num_ws)
        self.synthesis = synthesis


def modulated_conv(
    x: torch.Tensor,  # [N, in, h, w]
    weight: torch.Tensor,  # [out, in, k, k]
    style: torch.Tensor,  # [N, in]
    up: int,
    resample_filter: torch.Tensor,
) -> torch.Tensor:
    """Demodulated convolution (section 2.2), with the styles applied to the activations: the weights stay shared by
    the batch, so this is one ordinary convolution. Upsampling convolves, the rest correlates with the kernel.

    In half precision, style and weight are first scaled to a largest value of 1, so that the sums don't overflow;
    demodulation undoes it (Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", appendix).
    """
    if x.dtype in (torch.float16, torch.bfloat16):
        style = style / style.abs().amax(dim=1, keepdim=True).clamp(min=1e-8)
        weight = weight / (
            weight.abs().amax(dim=[1, 2, 3], keepdim=True).clamp(min=1e-8) * math.sqrt(weight[0].numel())
        )
    demodulation = (style.square() @ weight.square().sum(dim=[2, 3]).t() + 1e-8).rsqrt()
    x = conv2d_resample(
        x * style.to(x.dtype)[:, :, None, None],
        weight.to(x.dtype),
        f=resample_filter,
        up=up,
        padding=weight.shape[2] // 2,
        flip_weight=up == 1,
    )
    return x * demodulation.to(x.dtype)[:, :, None, None]


def _sizes(goal: tuple[int, int]) -> list[tuple[int, int]]:
    """Map sizes from the learned constant (shorter side 4) up to the image."""
    sizes = [(goal[0], goal[1])]
    while min(sizes[0]) > 4:
        if any(side % 2 for side in sizes[0]):
            break
        sizes.insert(0, (sizes[0][0] // 2, sizes[0][1] // 2))
    if min(sizes[0]) != 4 or len(sizes) < 2:
        raise UserError(f"StyleGAN2 doubles a map whose shorter side is 4 and never reaches {goal[0]}x{goal[1]}")
    return sizes
