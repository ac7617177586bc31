"""Convolution and linear layer with spectral normalisation (Miyato et al. 2018).

The largest singular value is estimated as u^T W v, with u and v kept by power iteration. Running the network never
moves them: the trainer calls `advance_power_iteration` after each optimiser step. So the estimate depends only on the
history of the weights, not on how a batch was cut up or on how many processes share it. A fresh layer has already
iterated, so that it is right from the first call on, in eval mode too.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from torch_utils.ops.conv2d_resample import conv2d_resample
from torch_utils.ops.upfirdn2d import setup_filter
from training.networks.shared.layers import RESAMPLE_TAPS

FIRST_ITERATIONS = 30  # from random vectors
ITERATIONS_PER_STEP = 2  # the weights move little in a step


class SpectralNorm(nn.Module):
    """A weight [out, ...] that is used divided by its largest singular value, as a matrix [out, the rest]."""

    weight_u: torch.Tensor
    weight_v: torch.Tensor

    def __init__(self, *shape: int):
        super().__init__()
        bound = 1 / math.sqrt(math.prod(shape[1:]))  # torch's own initialisation of Conv2d and Linear
        self.weight_orig = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.register_buffer("weight_u", F.normalize(torch.randn(shape[0]), dim=0))
        self.register_buffer("weight_v", F.normalize(torch.randn(math.prod(shape[1:])), dim=0))
        self.advance(FIRST_ITERATIONS)

    def normalized_weight(self) -> torch.Tensor:
        """W / (u^T W v). Gradients flow through W in both places, u and v are constants."""
        sigma = torch.dot(self.weight_u, self.weight_orig.flatten(1) @ self.weight_v)
        return self.weight_orig / sigma

    @torch.no_grad()
    def advance(self, iterations: int) -> None:
        """Power iteration on u and v, in place."""
        if self.weight_orig.is_meta:  # built only to receive the tensors of a file
            return
        matrix = self.weight_orig.flatten(1)
        for _ in range(iterations):
            self.weight_v.copy_(F.normalize(matrix.t() @ self.weight_u, dim=0, eps=1e-12))
            self.weight_u.copy_(F.normalize(matrix @ self.weight_v, dim=0, eps=1e-12))


class SpectralConv2d(SpectralNorm):
    """Convolution without bias: [N, in, H, W] -> [N, out, H, W], at half size if `down` is 2 (after a blur)."""

    resample_filter: torch.Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, down: int = 1):
        super().__init__(out_channels, in_channels, kernel_size, kernel_size)
        self.down, self.padding = down, kernel_size // 2
        self.register_buffer("resample_filter", setup_filter(RESAMPLE_TAPS), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        w = self.normalized_weight().to(x.dtype)
        return conv2d_resample(x, w, f=self.resample_filter, down=self.down, padding=self.padding)


class SpectralLinear(SpectralNorm):
    """Linear layer with bias: [N, in] -> [N, out]."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(out_features, in_features)
        bound = 1 / math.sqrt(in_features)
        self.bias = nn.Parameter(torch.empty(out_features).uniform_(-bound, bound))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.normalized_weight().to(x.dtype), self.bias.to(x.dtype))


def advance_power_iteration(network: nn.Module) -> None:
    """Follows the weights of all spectrally normalised layers of `network` after an optimiser step."""
    for module in network.modules():
        if isinstance(module, SpectralNorm):
            module.advance(ITERATIONS_PER_STEP)
