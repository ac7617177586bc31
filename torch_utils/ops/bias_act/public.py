"""bias_act: bias, activation, gain and clamp in one pass over memory."""

import torch

from torch_utils.ops.bias_act import (
    reference,
    registered,  # noqa: F401 (registers the ops)
)
from torch_utils.ops.bias_act.activations import ACTIVATIONS
from torch_utils.ops.dispatch import use_reference


def bias_act(
    x: torch.Tensor,
    b: torch.Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
) -> torch.Tensor:
    """y = clamp(gain * act(x + b)), the tail of every StyleGAN2 layer (Karras et al. 2020, appendix B).

    Args:
        x: any shape, any floating dtype.
        b: [x.shape[dim]] bias, or None.
        dim: the axis of x that b runs along.
        act: linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus or swish.
        alpha: negative slope of lrelu; None means 0.2.
        gain: factor after the activation; None means sqrt(2) for relu, lrelu and swish, else 1.
        clamp: bound of |y|, or None; the gradient is zero where it acts.

    Returns:
        A tensor like x. Differentiable twice.

    Raises:
        ValueError: unknown activation, a bias that doesn't fit, a negative clamp.
    """
    if act not in ACTIVATIONS:
        raise ValueError(f"unknown activation {act!r}: choose one of {', '.join(ACTIVATIONS)}")
    if clamp is not None and clamp < 0:
        raise ValueError(f"clamp must not be negative, but is {clamp}")
    if b is not None:
        dim = dim % x.ndim if -x.ndim <= dim < x.ndim else x.ndim
        if b.ndim != 1 or dim >= x.ndim or b.shape[0] != x.shape[dim]:
            raise ValueError(f"bias of shape {tuple(b.shape)} doesn't fit axis {dim} of {tuple(x.shape)}")
        b = b.to(x.dtype)
    alpha = ACTIVATIONS[act].default_alpha if alpha is None else float(alpha)
    gain = ACTIVATIONS[act].default_gain if gain is None else float(gain)
    if use_reference(x):
        return reference.bias_act(x, b, dim, act, alpha, gain, clamp)
    index = ACTIVATIONS[act].index
    return torch.ops.styleloom.bias_act(x, b, dim, index, alpha, gain, None if clamp is None else float(clamp))
