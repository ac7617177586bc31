"""bias_act in plain PyTorch."""

import torch

from torch_utils.ops.bias_act.activations import ACTIVATIONS


def add_bias(x: torch.Tensor, b: torch.Tensor | None, dim: int) -> torch.Tensor:
    """x + b, b along axis dim."""
    return x if b is None else x + b.reshape([-1 if axis == dim else 1 for axis in range(x.ndim)])


def bias_act(
    x: torch.Tensor,
    b: torch.Tensor | None,
    dim: int,
    act: str,
    alpha: float,
    gain: float,
    clamp: float | None,
) -> torch.Tensor:
    """clamp(gain * act(x + b)); see `torch_utils.ops.bias_act.bias_act`."""
    y = ACTIVATIONS[act].apply(add_bias(x, b, dim), alpha)
    if gain != 1:
        y = y * gain
    return y if clamp is None else y.clamp(-clamp, clamp)
