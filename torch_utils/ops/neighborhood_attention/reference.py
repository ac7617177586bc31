"""Neighbourhood attention in plain PyTorch: every query gathers its K*K neighbours."""

from functools import lru_cache

import torch


@lru_cache(maxsize=256)
def window_table(
    size: int, kernel: int, dilation: int
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """The window rule of one axis: ([size][kernel] neighbour positions, [size][kernel] bias indices).

    Position i lies in the dilation group of positions congruent to i mod dilation; the window is the `kernel`
    consecutive members of that group nearest to i, shifted inward at the borders. The bias index is the distance
    in group steps plus kernel - 1.
    """
    positions, bias = [], []
    for i in range(size):
        group, member = i % dilation, i // dilation
        members = -(-(size - group) // dilation)
        start = min(max(member - kernel // 2, 0), members - kernel)
        positions.append(tuple(group + dilation * (start + j) for j in range(kernel)))
        bias.append(tuple(start + j - member + kernel - 1 for j in range(kernel)))
    return tuple(positions), tuple(bias)


def neighbours(x: torch.Tensor, kernel: tuple[int, int], dilation: tuple[int, int]) -> torch.Tensor:
    """[N, H, W, heads, D] -> [N, H, W, heads, Ky*Kx, D]: what the window of each position holds."""
    n, height, width, heads, channels = x.shape
    rows = torch.tensor(window_table(int(height), kernel[0], dilation[0])[0], device=x.device)
    cols = torch.tensor(window_table(int(width), kernel[1], dilation[1])[0], device=x.device)
    gathered = x[:, rows][:, :, :, cols]  # [N, H, Ky, W, Kx, heads, D]
    return gathered.permute(0, 1, 3, 5, 2, 4, 6).reshape(n, height, width, heads, kernel[0] * kernel[1], channels)


def spread(weights: torch.Tensor, x: torch.Tensor, kernel: tuple[int, int], dilation: tuple[int, int]) -> torch.Tensor:
    """The transpose of the weighted sum: key j receives sum_i weights[i, j] x_i from the queries i that see it."""
    n, height, width, heads, channels = x.shape
    rows = torch.tensor(window_table(int(height), kernel[0], dilation[0])[0], device=x.device)
    cols = torch.tensor(window_table(int(width), kernel[1], dilation[1])[0], device=x.device)
    pairs = (weights[..., None] * x[..., None, :]).unflatten(4, kernel)  # [N, H, W, heads, Ky, Kx, D]
    along_x = pairs.permute(0, 1, 4, 2, 5, 3, 6).flatten(3, 4)  # [N, H, Ky, W*Kx, heads, D]
    summed = x.new_zeros([n, height, kernel[0], width, heads, channels]).index_add(3, cols.flatten(), along_x)
    return x.new_zeros(x.shape).index_add(1, rows.flatten(), summed.flatten(1, 2))


def _bias_picks(
    like: torch.Tensor, height: int, width: int, kernel: tuple[int, int], dilation: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """One-hot [H, Ky, 2Ky-1] and [W, Kx, 2Kx-1]: which table row and column each pair reads."""
    rows = torch.tensor(window_table(int(height), kernel[0], dilation[0])[1], device=like.device)
    cols = torch.tensor(window_table(int(width), kernel[1], dilation[1])[1], device=like.device)
    pick_row = torch.nn.functional.one_hot(rows, 2 * kernel[0] - 1).to(like.dtype)
    return pick_row, torch.nn.functional.one_hot(cols, 2 * kernel[1] - 1).to(like.dtype)


def collect_bias(ds: torch.Tensor, kernel: tuple[int, int], dilation: tuple[int, int]) -> torch.Tensor:
    """The transpose of `expand_bias`: [N, H, W, heads, Ky*Kx] -> [heads, 2Ky-1, 2Kx-1]."""
    pick_row, pick_col = _bias_picks(ds, ds.shape[1], ds.shape[2], kernel, dilation)
    along_x = torch.einsum("nyxhkl,xls->yhks", ds.unflatten(-1, kernel), pick_col)
    return torch.einsum("yhks,ykr->hrs", along_x, pick_row)


def expand_bias(
    rpb: torch.Tensor, height: int, width: int, kernel: tuple[int, int], dilation: tuple[int, int]
) -> torch.Tensor:
    """Bias table [heads, 2Ky-1, 2Kx-1] -> the bias of every pair [H, W, heads, Ky*Kx].

    Two products with one-hot matrices: on every device, and at every order of gradient, sums run in a fixed order.
    """
    pick_row, pick_col = _bias_picks(rpb, height, width, kernel, dilation)
    along_x = torch.einsum("hrs,xls->hrxl", rpb, pick_col)
    bias = torch.einsum("hrxl,ykr->yxhkl", along_x, pick_row)
    return bias.reshape(height, width, rpb.shape[0], kernel[0] * kernel[1])


def scores(
    q: torch.Tensor,
    k: torch.Tensor,
    rpb: torch.Tensor | None,
    kernel: tuple[int, int],
    dilation: tuple[int, int],
    scale: float,
) -> torch.Tensor:
    """Scores of every query against its neighbours, [N, H, W, heads, Ky*Kx]."""
    s = torch.einsum("nyxhd,nyxhkd->nyxhk", q, neighbours(k, kernel, dilation)) * scale
    if rpb is None:
        return s
    return s + expand_bias(rpb.to(s.dtype), q.shape[1], q.shape[2], kernel, dilation)


def na2d(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    rpb: torch.Tensor | None,
    kernel: tuple[int, int],
    dilation: tuple[int, int],
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs [N, H, W, heads, D] and the log-sum-exp of the scores [N, H, W, heads]."""
    s = scores(q, k, rpb, kernel, dilation, scale)
    lse = s.logsumexp(-1)
    out = torch.einsum("nyxhk,nyxhkd->nyxhd", s.softmax(-1), neighbours(v, kernel, dilation))
    return out, lse
