"""bias_act in plain PyTorch."""

import torch

from torch_utils.ops.activations import ACTIVATIONS


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
    if b is not None:
        x = x + b.reshape([-1 if axis == dim else 1 for axis in range(x.ndim)])
    y = ACTIVATIONS[act].apply(x, alpha)
    if gain != 1:
        y = y * gain
    return y if clamp is None else y.clamp(-clamp, clamp)
