"""Dense attention: torch's fused kernel, with a backward pass of our own where processors have matrix units."""

import torch
import torch.nn.functional as F

from torch_utils.ops.attention import registered
from torch_utils.ops.dispatch import use_reference

_STEP = 32  # lengths are multiples of it; blocks of fewer don't fill the matrix units


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(q k^T / sqrt(D)) v (Vaswani et al. 2017, "Attention Is All You Need", equation 1).

    Args:
        q: [N, heads, L, D].
        k, v: [N, heads, M, D].

    Returns:
        [N, heads, L, D]. Differentiable once; twice inside `sdpa_kernel(SDPBackend.MATH)`.
    """
    if can_run(q, k, v):
        return torch.ops.styleloom.attention(q, k, v)[0]
    return F.scaled_dot_product_attention(q, k, v)


def can_run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> bool:
    """Whether our backward pass takes these tensors: bfloat16 on a CPU with AMX or AVX-512 bfloat16 products, where
    gradients are wanted, and fused kernels allowed."""
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or not torch.is_grad_enabled():
        return False
    is_one_type = q.dtype == k.dtype == v.dtype and q.shape[3] == v.shape[3]
    fits = q.shape[2] % _STEP == 0 and k.shape[2] % _STEP == 0 and q.shape[3] % 8 == 0 and q.shape[3] <= 256
    return is_one_type and fits and _is_fused_allowed() and not use_reference(q) and registered.is_available()


def _is_fused_allowed() -> bool:
    """What `sdpa_kernel` switches, on CPUs too."""
    return torch.backends.cuda.flash_sdp_enabled()


# As in ops/selection.py.
_is_fused_allowed._dynamo_marked_constant = True  # type: ignore[attr-defined]
