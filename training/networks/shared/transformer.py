"""What transformers on a grid of tokens are made of: position tables, rotary attention, SwiGLU, RMS normalisation.

All layers compute in the precision of their input; weights are cast per use, statistics of normalisations are float32.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

Size = tuple[int, int]  # (rows, columns) of the grid of tokens; tokens are in row-major order


def xavier(rows: int, columns: int, gain: float = 1.0) -> nn.Parameter:
    """A matrix ~ U(-a, a), a = gain sqrt(6 / (rows + columns)) (Glorot & Bengio 2010)."""
    bound = gain * math.sqrt(6 / (rows + columns))
    return nn.Parameter(torch.empty(rows, columns).uniform_(-bound, bound))


class Linear(nn.Module):
    """[..., in] -> [..., out] with bias; weight xavier-uniform."""

    def __init__(self, in_features: int, out_features: int, gain: float = 1.0):
        super().__init__()
        self.weight = xavier(out_features, in_features, gain)
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class EqualLinear(nn.Module):
    """Linear layer that learns `lr_multiplier` times as fast: the stored weight is that much larger, and used times it.
    Unlike StyleGAN's there is no 1 / sqrt(in)."""

    def __init__(self, in_features: int, out_features: int, lr_multiplier: float = 0.01):
        super().__init__()
        self.lr_multiplier = lr_multiplier
        self.weight = xavier(out_features, in_features, gain=1 / lr_multiplier)
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight * self.lr_multiplier, self.bias * self.lr_multiplier)


def rms_normalize(x: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    """Scales the last axis to mean square 1 (Zhang & Sennrich 2019, "Root Mean Square Layer Normalization")."""
    y = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    return (y * (y.square().mean(dim=-1, keepdim=True) + eps).rsqrt()).to(x.dtype)


class RMSNorm(nn.Module):
    """`rms_normalize` times a learned weight."""

    def __init__(
        self,
        width: int,
        eps: float | None = 1e-6,  # None: the precision's machine epsilon
    ):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        eps = torch.finfo(x.dtype).eps if self.eps is None else self.eps
        return rms_normalize(x, eps) * self.weight.to(x.dtype)


def position_embedding(size: Size, width: int) -> torch.Tensor:
    """[1, rows * columns, width] float32: half of the channels tell the column, half the row, each by sines, then
    cosines, of position * 10000^(-i / (width / 4)) (Vaswani et al. 2017, in two dimensions)."""
    frequency = 10000 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    tables = []
    for position in reversed(_positions(size)):
        angle = position[:, None] * frequency
        tables += [angle.sin(), angle.cos()]
    return torch.cat(tables, dim=1)[None].float()


def _positions(size: Size) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column of every token, float64 [rows * columns] each."""
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in size)
    return rows.repeat_interleave(size[1]), columns.repeat(size[0])


class Rotary(nn.Module):
    """Rotary position embedding in two dimensions (Su et al. 2021, "RoFormer"; rows turn the first half of a head's
    channels, columns the second): neighbouring channels are the coordinates of a point that turns about the origin."""

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(
        self,
        size: Size,
        head_dim: int,
        unturned: int = 0,  # tokens in front of the grid that stay as they are
    ):
        super().__init__()
        self.size, self.unturned = size, unturned
        half = head_dim // 2
        frequency = 10000 ** (-torch.arange(0, half, 2, dtype=torch.float64) / half)
        angle = torch.cat([position[:, None] * frequency for position in _positions(size)], dim=1)
        angle = F.pad(angle, [0, 0, unturned, 0])
        self.register_buffer("cos", angle.cos().float(), persistent=False)  # [tokens, head_dim / 2]
        self.register_buffer("sin", angle.sin().float(), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, heads, tokens, head_dim] -> the same, turned; computed in float32 at least."""
        a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack([a * self.cos - b * self.sin, b * self.cos + a * self.sin], dim=-1)
        return turned.flatten(-2).to(x.dtype)


class Attention(nn.Module):
    """Full self-attention over tokens [N, L, C], with normalised queries and keys (Henry et al. 2020)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.q_norm = RMSNorm(width // heads, eps=None)
        self.k_norm = RMSNorm(width // heads, eps=None)
        self.proj = Linear(width, width)

    def forward(self, x: torch.Tensor, rotary: Rotary) -> torch.Tensor:
        # PyTorch's fused kernels differentiate once; twice needs its MATH backend, which is the caller's choice.
        y = F.scaled_dot_product_attention(*self.queries_keys_values(x, rotary))
        return self.proj(y.transpose(1, 2).flatten(2))

    def queries_keys_values(self, x: torch.Tensor, rotary: Rotary) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Each [N, heads, L, C / heads]; queries and keys as they are compared."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return rotary(self.q_norm(q)), rotary(self.k_norm(k)), v


class SwiGLU(nn.Module):
    """Gated feed-forward layer, [..., C] -> [..., C] (Shazeer 2020, "GLU Variants Improve Transformer"); its hidden
    size 8 C / 3 gives it the weights of an ordinary one of 4 C."""

    def __init__(self, width: int):
        super().__init__()
        hidden = 8 * width // 3
        self.w12 = Linear(width, 2 * hidden)
        self.w3 = Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(a) * b)
