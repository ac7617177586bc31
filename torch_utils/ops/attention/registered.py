"""Dense attention as dispatcher ops: schemas, shapes, default kernels and the gradient."""

from typing import Any

import torch

Tensor = torch.Tensor

torch.library.define("styleloom::attention", "(Tensor q, Tensor k, Tensor v) -> (Tensor, Tensor)")
torch.library.define(
    "styleloom::attention_backward",
    "(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor lse, Tensor delta) -> (Tensor, Tensor, Tensor)",
)


def is_available() -> bool:
    """Whether the compiled library has the backward pass and the processor can run it. The library is loaded."""
    return torch.ops.styleloom.has_dense_attention()


is_available._dynamo_marked_constant = True  # type: ignore[attr-defined]  # as in ops/selection.py


@torch.library.impl("styleloom::attention", "default")
def _attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The output [N, heads, L, D], and of every query the log of the sum of exponentials [N, heads, L], float32."""
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
    return out, lse.float().contiguous()


@torch.library.register_fake("styleloom::attention")
def _attention_shape(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return _like(q), q.new_empty(q.shape[:3], dtype=torch.float32)


@torch.library.impl("styleloom::attention_backward", "default")
def _attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor, delta: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Dao et al. 2022, "FlashAttention", appendix B.2, in float32 and in one piece."""
    scale = q.shape[3] ** -0.5
    q32, k32, v32, grad32 = (t.float() for t in (q, k, v, grad))
    p = (q32 @ k32.transpose(2, 3) * scale - lse[..., None]).exp()
    ds = p * (grad32 @ v32.transpose(2, 3) - delta[..., None]) * scale
    found = (ds @ k32, ds.transpose(2, 3) @ q32, p.transpose(2, 3) @ grad32)
    dq, dk, dv = (_like(t).copy_(g) for t, g in zip((q, k, v), found))
    return dq, dk, dv


@torch.library.register_fake("styleloom::attention_backward")
def _attention_backward_shape(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor, delta: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return _like(q), _like(k), _like(v)


def _like(t: Tensor) -> Tensor:
    """Empty [N, heads, L, D] that lies in memory as [N, L, heads, D]: what heads are split from and joined to."""
    n, heads, length, channels = t.shape
    return t.new_empty([n, length, heads, channels]).transpose(1, 2)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _gradient(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v, out, lse = ctx.saved_tensors
    delta = (grad.float() * out.float()).sum(dim=3)
    return torch.ops.styleloom.attention_backward(grad, q, k, v, lse, delta)


def _no_second_gradient(ctx: Any, *grads: Tensor) -> None:
    raise NotImplementedError(
        "attention's backward pass has no derivative: put `with sdpa_kernel(SDPBackend.MATH)` around the forward pass"
    )


torch.library.register_autograd("styleloom::attention", _gradient, setup_context=_save)
torch.library.register_autograd("styleloom::attention_backward", _no_second_gradient)
