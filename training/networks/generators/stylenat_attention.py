"""Attention layers of a StyleNAT block, [N, H, W, C] -> [N, H, W, C]: Hydra neighbourhood and full attention."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from torch_utils.ops.neighborhood_attention import Partition, hydra_na2d

INIT_STD = 0.02  # of linear weights and bias tables


class Linear(nn.Linear):
    """A linear layer as transformers start it: normal weights, zero bias. (Papers and code say truncated normal, but
    cut at +-2, which is 100 deviations away.) It computes in its input's precision."""

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=INIT_STD)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


def bias_table(*shape: int) -> nn.Parameter:
    """A table of relative position biases with fresh values."""
    return nn.Parameter(nn.init.normal_(torch.empty(shape), std=INIT_STD))


@dataclass(frozen=True)
class HeadGroup:
    """A partition of the heads: consecutive ones that share window and dilation."""

    heads: int
    kernel: tuple[int, int]  # (rows, columns) of the window, odd or the whole map
    dilation: int = 1


class HydraAttention(nn.Module):
    """Neighbourhood attention whose heads look through different windows (Walton et al. 2022, section 3.2)."""

    def __init__(self, dim: int, groups: list[HeadGroup]):
        super().__init__()
        self.groups = groups
        self.heads = sum(g.heads for g in groups)
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.rpb = nn.ParameterList(bias_table(g.heads, 2 * g.kernel[0] - 1, 2 * g.kernel[1] - 1) for g in groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(3, (3, self.heads, -1)).unbind(3)  # each [N, H, W, heads, D]
        partitions = [Partition(g.heads, g.kernel, g.dilation, rpb) for g, rpb in zip(self.groups, self.rpb)]
        return self.proj(hydra_na2d(q, k, v, partitions).flatten(3))


class FullAttention(nn.Module):
    """Every position attends to every other; no bias table. (The official code's form mixes up batch and heads.)"""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = Linear(dim, 3 * dim, bias=False)
        self.proj = Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        qkv = self.qkv(x).flatten(1, 2).unflatten(2, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [N, heads, L, D]
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.proj(y.flatten(2).unflatten(1, x.shape[1:3]))
