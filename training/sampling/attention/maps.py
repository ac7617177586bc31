"""What the attention layers of a generator look at: the weight of every position in one query's output."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial, singledispatch
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from dnnlib.errors import UserError
from torch_utils.ops.neighborhood_attention import na2d_probabilities
from torch_utils.ops.neighborhood_attention.reference import spread, window_table
from training.networks.generators.styleformer import EncoderLayer
from training.networks.generators.stylenat_attention import FullAttention, HeadGroup, HydraAttention
from training.networks.generators.swin_attention import WindowPairAttention
from training.networks.shared.generator import Generator, NoiseMode
from training.networks.shared.transformer import Attention, Rotary

Point = tuple[float, float]  # (y, x), each in [0, 1): a place in the image, whatever the resolution
QUERY_CHUNK = 1024  # queries whose rows of probabilities are held at once when averaging


@torch.no_grad()
def attention_maps(
    G: Generator,
    ws: torch.Tensor,  # [1, num_ws, w_dim]
    at: Point | None = None,  # the query; None: the mean over all queries
    noise_mode: NoiseMode = "const",
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Image [1, C, H, W], and per attention layer its maps [heads, h, w], named `HxW.index` in order of computation.

    A map holds the attention probability of each position as a key, so it sums to 1. Where keys are mixtures of
    positions (Styleformer-L), it holds the signed weight with which a position's value enters the query's output.
    Raises UserError if the network has no attention layers that `layer_maps` knows.
    """
    maps: dict[str, torch.Tensor] = {}
    with _recording(G, at, maps):
        image = G.synthesis(ws, noise_mode=noise_mode)
    if not maps:
        raise UserError(f"{G.cfg.kind} has no attention layers to show")
    return image, maps


@contextmanager
def _recording(G: Generator, at: Point | None, maps: dict[str, torch.Tensor]) -> Iterator[None]:
    def record(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        found = layer_maps(layer, at, *inputs)
        if found is not None:
            size = f"{found.shape[1]}x{found.shape[2]}"
            index = sum(name.startswith(f"{size}.") for name in maps)
            maps[f"{size}.{index}"] = found

    handles = [module.register_forward_pre_hook(record) for module in G.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@singledispatch
def layer_maps(layer: nn.Module, at: Point | None, *inputs: Any) -> torch.Tensor | None:
    """Maps [heads, h, w] of one layer given its forward inputs, as `attention_maps` describes; None for layers without
    attention. Networks of your own: decorate a function with `@layer_maps.register`."""
    return None


@layer_maps.register
def _(layer: EncoderLayer, at: Point | None, x: torch.Tensor, w: torch.Tensor, *rest: Any) -> torch.Tensor:
    q, k, _ = layer.qkv(x, *layer.affine1(w).chunk(2, dim=1))
    projection = layer.proj_weight
    q, k = (_heads_first(t, layer.spec.heads) for t in (q, k if projection is None else projection @ k))
    rows = _rows(q, k, layer.spec.size, at)
    return (rows if projection is None else rows @ projection).unflatten(1, layer.spec.size)


@layer_maps.register
def _(layer: FullAttention, at: Point | None, x: torch.Tensor) -> torch.Tensor:
    size = (x.shape[1], x.shape[2])
    q, k, _ = layer.qkv(x).flatten(1, 2).chunk(3, dim=2)
    return _rows(_heads_first(q, layer.heads), _heads_first(k, layer.heads), size, at).unflatten(1, size)


@layer_maps.register
def _(layer: Attention, at: Point | None, x: torch.Tensor, rotary: Rotary) -> torch.Tensor:
    q, k, _ = layer.queries_keys_values(x, rotary)
    return _rows(q[0], k[0], rotary.size, at).unflatten(1, rotary.size)


@layer_maps.register
def _(layer: HydraAttention, at: Point | None, x: torch.Tensor) -> torch.Tensor:
    q, k, _ = layer.qkv(x).unflatten(3, (3, layer.heads, -1)).unbind(3)  # each [1, H, W, heads, D]
    parts, first = [], 0
    for group, rpb in zip(layer.groups, layer.rpb):
        heads = slice(first, first + group.heads)
        one = mean_neighbourhood if at is None else partial(neighbourhood, at=token_at(at, (x.shape[1], x.shape[2])))
        parts.append(one(q[..., heads, :], k[..., heads, :], group, rpb))
        first += group.heads
    return torch.cat(parts)


@layer_maps.register
def _(layer: WindowPairAttention, at: Point | None, x: torch.Tensor) -> torch.Tensor:
    """Attention is linear in its values, so values that mark one key at a time would do; windows make it cheaper: a
    value that marks a key's place within its window, w * w of them, tells all windows apart by where it comes out."""
    size = (x.shape[1], x.shape[2])
    q, k, _ = layer.qkv(x).unflatten(3, (3, 2, layer.heads, -1)).unbind(3)  # each [1, H, W, 2, heads, D]
    shifts = ((0, 0), (-layer.shift, -layer.shift))
    masks = (torch.zeros_like(layer.region_mask), layer.region_mask)
    halves = []
    for half, (shift, mask) in enumerate(zip(shifts, masks)):
        qh, kh = (_windows(t[:, :, :, half].roll(shift, (1, 2)), layer.window) for t in (q, k))
        bias = layer.bias_table[half][layer.bias_index].permute(2, 0, 1)
        p = (qh @ kh.transpose(-1, -2) * qh.shape[-1] ** -0.5 + bias + mask).softmax(-1)[
            0
        ]  # [H/w, W/w, heads, w*w, w*w]
        chosen = p.mean(3) / (p.shape[0] * p.shape[1]) if at is None else _window_row(p, at, size, shift, layer.window)
        dense = chosen.unflatten(3, (layer.window, layer.window)).permute(2, 0, 3, 1, 4).reshape(-1, *size)
        halves.append(dense.roll((-shift[0], -shift[1]), (1, 2)))
    return torch.cat(halves)


def _windows(t: torch.Tensor, window: int) -> torch.Tensor:
    """[1, H, W, heads, D] -> [1, H/w, W/w, heads, w*w, D]."""
    return t.unflatten(2, (-1, window)).unflatten(1, (-1, window)).permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5)


def _window_row(p: torch.Tensor, at: Point, size: tuple[int, int], shift: tuple[int, int], window: int) -> torch.Tensor:
    """The query's row of `p` in its window, zeros in all other windows, [H/w, W/w, heads, w*w]."""
    y, x = ((i + s) % n for i, s, n in zip(token_at(at, size), shift, size))
    row = torch.zeros_like(p[..., 0, :])
    row[y // window, x // window] = p[y // window, x // window, :, y % window * window + x % window]
    return row


def token_at(at: Point, size: tuple[int, int]) -> tuple[int, int]:
    """The position of a map of `size` (height, width) that a place in the image falls on."""
    y, x = (min(max(int(share * n), 0), n - 1) for share, n in zip(at, size))
    return y, x


def neighbourhood(
    q: torch.Tensor,  # [1, H, W, heads, D]
    k: torch.Tensor,
    group: HeadGroup,
    rpb: torch.Tensor | None,  # [heads, 2K-1, 2K-1]
    at: tuple[int, int],
) -> torch.Tensor:
    """Probabilities of one query's K x K neighbours at their places in the map, zero elsewhere: [heads, H, W]."""
    tables = [window_table(n, kernel, group.dilation) for n, kernel in zip(q.shape[1:3], group.kernel)]
    rows, columns = (torch.tensor(table[0][i], device=q.device) for table, i in zip(tables, at))
    window = k[0, rows][:, columns]  # [K, K, heads, D]
    scores = torch.einsum("hd,yxhd->hyx", q[0, at[0], at[1]], window) * q.shape[-1] ** -0.5
    if rpb is not None:
        scores = scores + rpb[:, list(tables[0][1][at[0]])][:, :, list(tables[1][1][at[1]])]
    result = q.new_zeros(q.shape[3], q.shape[1], q.shape[2])
    result[:, rows[:, None], columns] = scores.flatten(1).softmax(1).view_as(scores)
    return result


def mean_neighbourhood(
    q: torch.Tensor, k: torch.Tensor, group: HeadGroup, rpb: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean over all queries of what `neighbourhood` gives, [heads, H, W]; one head at a time, to save memory."""
    parts = []
    for h in range(group.heads):
        bias = None if rpb is None else rpb[h : h + 1]
        p = na2d_probabilities(q[..., h : h + 1, :], k[..., h : h + 1, :], group.kernel, group.dilation, bias)
        received = spread(p.flatten(4), torch.ones_like(q[..., :1, :1]), group.kernel, (group.dilation,) * 2)
        parts.append(received[0, :, :, 0, 0] / (q.shape[1] * q.shape[2]))
    return torch.stack(parts)


def _heads_first(t: torch.Tensor, heads: int) -> torch.Tensor:
    """[1, L, C] -> [heads, L, C / heads]."""
    return t[0].unflatten(1, (heads, -1)).transpose(0, 1)


def _rows(q: torch.Tensor, k: torch.Tensor, size: tuple[int, int], at: Point | None) -> torch.Tensor:
    """Probabilities over the keys, [heads, keys]: of the query at a point, or their mean over all queries."""
    if at is not None:
        y, x = token_at(at, size)
        q = q[:, y * size[1] + x, None]
    total = q.new_zeros(q.shape[0], k.shape[1])
    for chunk in q.split(QUERY_CHUNK, dim=1):
        total += (chunk @ k.transpose(1, 2) * q.shape[2] ** -0.5).softmax(2).sum(1)
    return total / q.shape[1]


def upsampled(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Maps [heads, h, w] -> [heads, H, W], every position a block of pixels."""
    return F.interpolate(maps[None], size, mode="nearest")[0]
