"""bias_act as dispatcher ops: schemas, shapes, default kernels and gradients up to the second order."""

from typing import Any

import torch

from torch_utils.ops.bias_act import reference
from torch_utils.ops.bias_act.activations import ACTIVATIONS

Tensor = torch.Tensor
_ops = torch.ops.styleloom
_NAMES = list(ACTIVATIONS)
_PIECEWISE_LINEAR = {"linear", "relu", "lrelu"}

torch.library.define(
    "styleloom::bias_act",
    "(Tensor x, Tensor? b, int dim, int act, float alpha, float gain, float? clamp) -> Tensor",
)
# g * dy/dx, or with g2: g * g2 * d2y/dx2. x is the input of bias_act, or with from_output its output.
torch.library.define(
    "styleloom::bias_act_grad",
    "(Tensor g, Tensor? g2, Tensor x, Tensor? b, int dim, int act, float alpha, float gain, float? clamp, "
    "bool from_output) -> Tensor",
)


@torch.library.impl("styleloom::bias_act", "default")
def _bias_act(
    x: Tensor, b: Tensor | None, dim: int, act: int, alpha: float, gain: float, clamp: float | None
) -> Tensor:
    y = reference.bias_act(x, b, dim, _NAMES[act], alpha, gain, clamp)
    return y.clone() if y is x else y


def reference_gradient(
    g: Tensor,
    g2: Tensor | None,
    x: Tensor,
    b: Tensor | None,
    dim: int,
    act: int,
    alpha: float,
    gain: float,
    clamp: float | None,
    from_output: bool,
) -> Tensor:
    """The op `bias_act_grad` in PyTorch."""
    activation = ACTIVATIONS[_NAMES[act]]
    u = reference.add_bias(x, b, dim)
    y = x if from_output else gain * activation.apply(u, alpha)
    result = g * (gain * (activation.slope(u, alpha) if g2 is None else g2 * activation.curvature(u)))
    if clamp is None:
        return result
    # A clamped output was stored in its type, which may have rounded the clamp down.
    bound = min(clamp, torch.tensor(clamp, dtype=x.dtype).item()) if from_output else clamp
    return result.masked_fill(y.abs() >= bound, 0)


torch.library.impl("styleloom::bias_act_grad", "default", reference_gradient)


@torch.library.register_fake("styleloom::bias_act")
def _bias_act_shape(x: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(x)


@torch.library.register_fake("styleloom::bias_act_grad")
def _bias_act_grad_shape(g: Tensor, g2: Tensor | None, x: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(x)


def _sum_to_bias(dx: Tensor, dim: int) -> Tensor:
    if dx.ndim == 1:  # sum([]) would sum over everything
        return dx
    return dx.sum([axis for axis in range(dx.ndim) if axis != dim])


def _save_forward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, b, *ctx.options = inputs
    _, act, alpha, gain, _ = ctx.options
    # The output tells the slope of these, and the next layer keeps it alive anyway; the input need not be kept.
    ctx.from_output = _NAMES[act] in _PIECEWISE_LINEAR and gain > 0 and (_NAMES[act] != "lrelu" or alpha > 0)
    ctx.save_for_backward(*((output, None) if ctx.from_output else (x, b)))
    ctx.has_bias = b is not None


def _bias_act_gradient(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    x, b = ctx.saved_tensors
    dx = _ops.bias_act_grad(g, None, x, b, *ctx.options, ctx.from_output)
    db = _sum_to_bias(dx, ctx.options[0]) if ctx.has_bias and ctx.needs_input_grad[1] else None
    return dx, db, None, None, None, None, None


def _save_grad(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.dim, ctx.act, ctx.alpha, ctx.gain, ctx.clamp, ctx.from_output = inputs
    ctx.save_for_backward(*tensors)


def _bias_act_second_gradient(ctx: Any, c: Tensor) -> tuple[Any, ...]:
    g, g2, x, b = ctx.saved_tensors
    options = (ctx.dim, ctx.act, ctx.alpha, ctx.gain, ctx.clamp, ctx.from_output)
    linear = _NAMES[ctx.act] in _PIECEWISE_LINEAR
    rest = (None,) * 6
    if g2 is None:
        dg = _ops.bias_act_grad(c, None, x, b, *options)
        if linear:
            return dg, None, None, None, *rest
        dx = _ops.bias_act_grad(g, c, x, b, *options)
        return dg, None, dx, None if b is None else _sum_to_bias(dx, ctx.dim), *rest
    if not linear and (ctx.needs_input_grad[2] or ctx.needs_input_grad[3]):
        raise NotImplementedError(
            f"bias_act has no third derivative of {_NAMES[ctx.act]}: use `with ops.use('ref')` around the forward pass"
        )
    return _ops.bias_act_grad(c, g2, x, b, *options), _ops.bias_act_grad(g, c, x, b, *options), None, None, *rest


torch.library.register_autograd("styleloom::bias_act", _bias_act_gradient, setup_context=_save_forward)
torch.library.register_autograd("styleloom::bias_act_grad", _bias_act_second_gradient, setup_context=_save_grad)
