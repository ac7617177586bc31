"""Attention in windows, as StyleSwin uses it (Zhang et al. 2022, section 3.2)."""

import torch
from torch import nn

from training.networks.generators.stylenat_attention import Linear, bias_table

OTHER_REGION = -100.0  # score between tokens that are neighbours only because the map was rolled


class WindowPairAttention(nn.Module):
    """Half of the heads attend within a grid of windows, the others within the grid shifted by half a window.
    [N, H, W, C] -> [N, H, W, C]."""

    bias_index: torch.Tensor
    region_mask: torch.Tensor

    def __init__(self, dim: int, heads: int, size: tuple[int, int], window: int, shift: int):
        super().__init__()
        self.heads, self.window, self.shift = heads // 2, window, shift
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.bias_table = nn.ParameterList(bias_table((2 * window - 1) ** 2, self.heads) for _ in range(2))
        self.register_buffer("bias_index", relative_index(window), persistent=False)
        self.register_buffer("region_mask", shifted_region_mask(size, window, shift), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        qkv = self.qkv(x).unflatten(3, (3, 2, self.heads, -1))
        regular, shifted = qkv.unbind(4)  # each [N, H, W, 3, heads, D]
        size, back = x.shape[1:3], (self.shift, self.shift)
        y = self._attend(regular, self._bias(0), size)
        shifted = shifted.roll((-self.shift, -self.shift), (1, 2))
        z = self._attend(shifted, self._bias(1) + self.region_mask, size).roll(back, (1, 2))
        return self.proj(torch.cat([y, z], dim=3))

    def _bias(self, index: int) -> torch.Tensor:
        """[heads, w*w, w*w]."""
        return self.bias_table[index][self.bias_index].permute(2, 0, 1)

    def _attend(self, qkv: torch.Tensor, bias: torch.Tensor, size: torch.Size) -> torch.Tensor:
        """qkv [N, H, W, 3, heads, D]; bias broadcasts to [H/w, W/w, heads, w*w, w*w]. Returns [N, H, W, heads * D]."""
        w = self.window
        grid = qkv.unflatten(2, (-1, w)).unflatten(1, (-1, w))  # [N, H/w, w, W/w, w, 3, heads, D]
        q, k, v = grid.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(5, 6)  # each [N, H/w, W/w, heads, w*w, D]
        attention = (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2) + bias).softmax(-1).to(v.dtype)
        y = (attention @ v).unflatten(4, (w, w))  # [N, H/w, W/w, heads, w, w, D]
        return y.permute(0, 1, 4, 2, 5, 3, 6).reshape(len(qkv), *size, -1)


def relative_index(window: int) -> torch.Tensor:
    """Row of the bias table for every pair (query, key) of a window's tokens, [w*w, w*w]."""
    y, x = (t.flatten() for t in torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"))
    dy, dx = y[:, None] - y[None, :], x[:, None] - x[None, :]
    return (dy + window - 1) * (2 * window - 1) + dx + window - 1


def shifted_region_mask(size: tuple[int, int], window: int, shift: int) -> torch.Tensor:
    """What is added to the scores of the rolled map, [H/w, W/w, 1, w*w, w*w]: rolling brings opposite edges together
    in one window, and those must not see each other. All zero without a shift."""

    def region(n: int) -> torch.Tensor:
        i = torch.arange(n)
        return (i >= n - window).long() + (i >= n - shift).long() if shift else torch.zeros(n, dtype=torch.long)

    labels = 3 * region(size[0])[:, None] + region(size[1])[None, :]
    labels = labels.unflatten(1, (-1, window)).unflatten(0, (-1, window)).permute(0, 2, 1, 3).flatten(2)
    differ = labels[..., :, None] != labels[..., None, :]
    return (differ * OTHER_REGION)[:, :, None]
