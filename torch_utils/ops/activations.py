"""The table of activations that `bias_act` knows, with their derivatives written in terms of the saved tensor."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


@dataclass(frozen=True)
class Activation:
    """One activation: its number in the kernels, defaults, and how to compute it in PyTorch."""

    index: int
    apply: Callable[[torch.Tensor, float], torch.Tensor]  # (x, alpha) -> act(x)
    default_alpha: float = 0.0
    default_gain: float = 1.0


ACTIVATIONS = {
    "linear": Activation(0, lambda x, alpha: x),
    "relu": Activation(1, lambda x, alpha: F.relu(x), default_gain=2**0.5),
    "lrelu": Activation(2, F.leaky_relu, default_alpha=0.2, default_gain=2**0.5),
    "tanh": Activation(3, lambda x, alpha: torch.tanh(x)),
    "sigmoid": Activation(4, lambda x, alpha: torch.sigmoid(x)),
    "elu": Activation(5, lambda x, alpha: F.elu(x)),
    "selu": Activation(6, lambda x, alpha: F.selu(x)),
    "softplus": Activation(7, lambda x, alpha: F.softplus(x)),
    "swish": Activation(8, lambda x, alpha: torch.sigmoid(x) * x, default_gain=2**0.5),
}
