"""The table of activations that `bias_act` knows, with their derivatives written in terms of the saved tensor."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


def _step(u: torch.Tensor) -> torch.Tensor:
    return (u > 0).to(u.dtype)


def _sigmoid_slope(u: torch.Tensor) -> torch.Tensor:
    s = u.sigmoid()
    return s * (1 - s)


@dataclass(frozen=True)
class Activation:
    """One activation: its number in the kernels, defaults, and how to compute it in PyTorch."""

    index: int
    apply: Callable[[torch.Tensor, float], torch.Tensor]  # (u, alpha) -> act(u)
    slope: Callable[[torch.Tensor, float], torch.Tensor]  # (u, alpha) -> act'(u)
    curvature: Callable[[torch.Tensor], torch.Tensor] = torch.zeros_like  # u -> act''(u)
    default_alpha: float = 0.0
    default_gain: float = 1.0


ACTIVATIONS = {
    "linear": Activation(0, lambda u, alpha: u, lambda u, alpha: torch.ones_like(u)),
    "relu": Activation(
        1,
        lambda u, alpha: F.relu(u),
        lambda u, alpha: (~(u <= 0)).to(u.dtype),  # as torch, whose relu lets NaN and its gradient pass
        default_gain=2**0.5,
    ),
    "lrelu": Activation(
        2,
        F.leaky_relu,
        lambda u, alpha: torch.where(u > 0, 1.0, alpha).to(u.dtype),
        default_alpha=0.2,
        default_gain=2**0.5,
    ),
    "tanh": Activation(
        3,
        lambda u, alpha: torch.tanh(u),
        lambda u, alpha: 1 - torch.tanh(u) ** 2,
        lambda u: -2 * torch.tanh(u) * (1 - torch.tanh(u) ** 2),
    ),
    "sigmoid": Activation(
        4,
        lambda u, alpha: torch.sigmoid(u),
        lambda u, alpha: _sigmoid_slope(u),
        lambda u: _sigmoid_slope(u) * (1 - 2 * u.sigmoid()),
    ),
    "elu": Activation(
        5,
        lambda u, alpha: F.elu(u),
        lambda u, alpha: u.clamp(max=0).exp(),
        lambda u: u.clamp(max=0).exp() * (1 - _step(u)),
    ),
    "selu": Activation(
        6,
        lambda u, alpha: F.selu(u),
        lambda u, alpha: SELU_SCALE * torch.where(u > 0, 1.0, SELU_ALPHA * u.exp()).to(u.dtype),
        lambda u: SELU_SCALE * SELU_ALPHA * u.clamp(max=0).exp() * (1 - _step(u)),
    ),
    "softplus": Activation(
        7, lambda u, alpha: F.softplus(u), lambda u, alpha: u.sigmoid(), lambda u: _sigmoid_slope(u)
    ),
    "swish": Activation(
        8,
        lambda u, alpha: torch.sigmoid(u) * u,
        lambda u, alpha: u.sigmoid() * (1 + u * (1 - u.sigmoid())),
        lambda u: _sigmoid_slope(u) * (2 + u * (1 - 2 * u.sigmoid())),
        default_gain=2**0.5,
    ),
}
