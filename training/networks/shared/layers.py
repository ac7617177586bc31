"""Layers that several networks share. Equalised learning rate: Karras et al. 2018, Progressive Growing, section 4.1."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from dnnlib.errors import UserError
from torch_utils.ops.bias_act import bias_act
from torch_utils.ops.bias_act.activations import ACTIVATIONS
from torch_utils.ops.conv2d_resample import conv2d_resample
from torch_utils.ops.upfirdn2d import setup_filter

RESAMPLE_TAPS = [1, 3, 3, 1]


def channels_at(size: tuple[int, int], channel_base: int, channel_max: int) -> int:
    """min(channel_base // r, channel_max), r the longer side of a map. UserError if that is none."""
    channels = min(channel_base // max(size), channel_max)
    if channels < 1:
        raise UserError(f"channel_base={channel_base} leaves no channel at {size[1]}x{size[0]} pixels: raise it")
    return channels


class FullyConnected(nn.Module):
    """Equalised linear layer: [N, in] -> [N, out], then bias and activation."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation: str = "linear",  # any activation of ops.bias_act
        lr_multiplier: float = 1.0,  # effective learning rate relative to other layers
        bias_init: float = 0.0,  # stored value of every bias
    ):
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full([out_features], float(bias_init))) if bias else None
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        w = self.weight.to(x.dtype) * self.weight_gain
        b = None if self.bias is None else self.bias.to(x.dtype) * self.bias_gain
        if self.activation == "linear":
            return F.linear(x, w, b)
        return bias_act(F.linear(x, w), b, act=self.activation)


class EqualizedConv2d(nn.Module):
    """Equalised convolution with optional filtered x2 resampling: [N, in, H, W] -> [N, out, H', W']."""

    resample_filter: torch.Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        bias: bool = True,
        activation: str = "linear",
        down: int = 1,  # 2: blur with [1,3,3,1] and keep every other pixel
        conv_clamp: float | None = None,  # clamp of the output, in units of the layer's gain
    ):
        super().__init__()
        self.activation, self.down, self.conv_clamp = activation, down, conv_clamp
        self.padding = kernel_size // 2
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)
        self.act_gain = ACTIVATIONS[activation].default_gain
        self.register_buffer("resample_filter", setup_filter(RESAMPLE_TAPS), persistent=False)

    def forward(self, x: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
        """`gain` scales output and clamp alike (the 1/sqrt(2) of a residual branch)."""
        w = (self.weight * self.weight_gain).to(x.dtype)
        x = conv2d_resample(x, w, f=self.resample_filter, down=self.down, padding=self.padding)
        b = None if self.bias is None else self.bias.to(x.dtype)
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return bias_act(x, b, act=self.activation, gain=self.act_gain * gain, clamp=clamp)


def normalize_2nd_moment(x: torch.Tensor, eps: float = 1e-8) -> torch.Tensor:
    """Scales each row of [N, C] to mean square 1 (StyleGAN, Karras et al. 2019: the latent's pixel norm)."""
    return x * (x.square().mean(dim=1, keepdim=True) + eps).rsqrt()


def minibatch_std(x: torch.Tensor, group_size: int | None, num_channels: int = 1) -> torch.Tensor:
    """Appends the standard deviation within groups of the batch as channels (Progressive Growing, section 3).

    [N, C, H, W] -> [N, C + num_channels, H, W]. A group takes every (N/G)-th image. G is the largest divisor of N
    that is at most `group_size`. Statistics of half-precision maps are float32.
    """
    n, c, h, w = x.shape
    g = largest_divisor(n, group_size or n)
    y = x.to(at_least_float32(x.dtype)).reshape(g, n // g, num_channels, c // num_channels, h, w)
    y = y - y.mean(dim=0)
    y = (y.square().mean(dim=0) + 1e-8).sqrt().mean(dim=[2, 3, 4])
    y = y[:, :, None, None].repeat(g, 1, h, w)
    return torch.cat([x, y.to(x.dtype)], dim=1)


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """float32 for the half precisions, else the dtype itself."""
    return torch.promote_types(dtype, torch.float32)


def largest_divisor(n: int, at_most: int) -> int:
    """Largest divisor of n that is not above `at_most`."""
    return next(g for g in range(min(n, at_most), 0, -1) if n % g == 0)
