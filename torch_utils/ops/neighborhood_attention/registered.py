"""Neighbourhood attention as dispatcher ops: schemas, shapes, default kernels and gradients.

Kernels take head partitions as a flat list, five numbers each: heads, K_y, K_x, d_y, d_x; and their bias tables as one
flat tensor. The family QK, AV, AV^T is closed under differentiation, see docs/ops.md.
"""

from collections.abc import Iterator
from typing import Any

import torch

from torch_utils.ops.neighborhood_attention import reference

Tensor = torch.Tensor
_ops = torch.ops.styleloom
PARTITION_INTS = 5

torch.library.define(
    "styleloom::na2d", "(Tensor q, Tensor k, Tensor v, Tensor? rpb, int[] partitions, float scale) -> (Tensor, Tensor)"
)
torch.library.define(
    "styleloom::na2d_backward",
    "(Tensor grad_out, Tensor q, Tensor k, Tensor v, Tensor? rpb, Tensor lse, Tensor delta, int[] partitions, "
    "float scale) -> (Tensor, Tensor, Tensor, Tensor)",
)
torch.library.define("styleloom::na2d_qk", "(Tensor q, Tensor k, int[] window) -> Tensor")
torch.library.define("styleloom::na2d_av", "(Tensor weights, Tensor x, int[] window) -> Tensor")
torch.library.define("styleloom::na2d_avt", "(Tensor weights, Tensor x, int[] window) -> Tensor")


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that sums, bias tables and log-sum-exps are held in."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


class HeadRun:
    """One partition: which heads, which window, and which entries of the flat bias tensor."""

    def __init__(self, heads: slice, window: list[int], entries: slice) -> None:
        self.heads, self.window, self.entries = heads, window, entries
        self.kernel, self.dilation = (window[0], window[1]), (window[2], window[3])

    def table(self, rpb: Tensor | None) -> Tensor | None:
        """[heads, 2K_y-1, 2K_x-1] of this partition."""
        if rpb is None:
            return None
        return rpb[self.entries].reshape(-1, 2 * self.kernel[0] - 1, 2 * self.kernel[1] - 1)


def head_runs(partitions: list[int]) -> Iterator[HeadRun]:
    """Unpacks the flat partition list."""
    head = entry = 0
    for i in range(0, len(partitions), PARTITION_INTS):
        heads, *window = partitions[i : i + PARTITION_INTS]
        entries = heads * (2 * window[0] - 1) * (2 * window[1] - 1)
        yield HeadRun(slice(head, head + heads), window, slice(entry, entry + entries))
        head, entry = head + heads, entry + entries


# --- QK, AV and AV^T of one window -----------------------------------------------------------------------------------


@torch.library.impl("styleloom::na2d_qk", "default")
def _qk(q: Tensor, k: Tensor, window: list[int]) -> Tensor:
    near = reference.neighbours(k, (window[0], window[1]), (window[2], window[3]))
    return torch.einsum("nyxhd,nyxhkd->nyxhk", q, near)


@torch.library.impl("styleloom::na2d_av", "default")
def _av(weights: Tensor, x: Tensor, window: list[int]) -> Tensor:
    near = reference.neighbours(x, (window[0], window[1]), (window[2], window[3]))
    return torch.einsum("nyxhk,nyxhkd->nyxhd", weights, near)


@torch.library.impl("styleloom::na2d_avt", "default")
def _avt(weights: Tensor, x: Tensor, window: list[int]) -> Tensor:
    return reference.spread(weights, x, (window[0], window[1]), (window[2], window[3]))


@torch.library.register_fake("styleloom::na2d_qk")
def _qk_shape(q: Tensor, k: Tensor, window: list[int]) -> Tensor:
    return q.new_empty([*q.shape[:4], window[0] * window[1]])


@torch.library.register_fake("styleloom::na2d_av")
@torch.library.register_fake("styleloom::na2d_avt")
def _weighted_shape(weights: Tensor, x: Tensor, window: list[int]) -> Tensor:
    return x.new_empty(x.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.window = inputs[2]


def _qk_gradient(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
    q, k = ctx.saved_tensors
    return _ops.na2d_av(g, k, ctx.window), _ops.na2d_avt(g, q, ctx.window), None


def _av_gradient(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
    weights, x = ctx.saved_tensors
    return _ops.na2d_qk(g, x, ctx.window), _ops.na2d_avt(weights, g, ctx.window), None


def _avt_gradient(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
    weights, x = ctx.saved_tensors
    return _ops.na2d_qk(x, g, ctx.window), _ops.na2d_av(weights, g, ctx.window), None


torch.library.register_autograd("styleloom::na2d_qk", _qk_gradient, setup_context=_save)
torch.library.register_autograd("styleloom::na2d_av", _av_gradient, setup_context=_save)
torch.library.register_autograd("styleloom::na2d_avt", _avt_gradient, setup_context=_save)


# --- the fused forward and backward ----------------------------------------------------------------------------------


@torch.library.impl("styleloom::na2d", "default")
def _na2d(
    q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, partitions: list[int], scale: float
) -> tuple[Tensor, Tensor]:
    inner = sum_dtype(q.dtype)
    outputs, sums = [], []
    for run in head_runs(partitions):
        q1, k1, v1 = (t[..., run.heads, :].to(inner) for t in (q, k, v))
        out, lse = reference.na2d(q1, k1, v1, run.table(rpb), run.kernel, run.dilation, scale)
        outputs.append(out.to(q.dtype))
        sums.append(lse)
    return torch.cat(outputs, 3), torch.cat(sums, 3)


@torch.library.register_fake("styleloom::na2d")
def _na2d_shape(q: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:4], dtype=sum_dtype(q.dtype))


def _probabilities(q: Tensor, k: Tensor, table: Tensor | None, lse: Tensor, run: HeadRun, scale: float) -> Tensor:
    s = scale * _ops.na2d_qk(q, k, run.window)
    if table is not None:
        s = s + reference.expand_bias(table.to(s.dtype), q.shape[1], q.shape[2], run.kernel, run.dilation)
    return (s - lse[..., None]).exp()


@torch.library.impl("styleloom::na2d_backward", "default")
def _na2d_backward(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rpb: Tensor | None,
    lse: Tensor,
    delta: Tensor,
    partitions: list[int],
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    inner = lse.dtype
    grads: list[list[Tensor]] = [[], [], [], []]
    for run in head_runs(partitions):
        g1, q1, k1, v1 = (t[..., run.heads, :].to(inner) for t in (grad_out, q, k, v))
        table = run.table(rpb)
        a = _probabilities(q1, k1, table, lse[..., run.heads], run, scale)
        ds = a * (_ops.na2d_qk(g1, v1, run.window) - delta[..., run.heads, None])
        grads[0].append(scale * _ops.na2d_av(ds, k1, run.window))
        grads[1].append(scale * _ops.na2d_avt(ds, q1, run.window))
        grads[2].append(_ops.na2d_avt(a, g1, run.window))
        if table is not None:
            grads[3].append(reference.collect_bias(ds, run.kernel, run.dilation).flatten())
    grad_q, grad_k, grad_v = (torch.cat(parts, 3).to(q.dtype) for parts in grads[:3])
    return grad_q, grad_k, grad_v, q.new_empty([0]) if rpb is None else torch.cat(grads[3]).to(rpb.dtype)


@torch.library.register_fake("styleloom::na2d_backward")
def _na2d_backward_shape(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    bias = q.new_empty([0]) if rpb is None else rpb.new_empty(rpb.shape)
    return q.new_empty(q.shape), q.new_empty(q.shape), q.new_empty(q.shape), bias


def _save_forward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, rpb, ctx.partitions, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, rpb, *output)


def _na2d_gradient(ctx: Any, grad_out: Tensor, grad_lse: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, rpb, out, lse = ctx.saved_tensors
    # Softmax's gradient needs the mean of the weights' gradient, sum_j a_j (g.v_j) = g.out; that of the log-sum-exp
    # enters at the same place.
    delta = (grad_out * out).sum(-1, dtype=lse.dtype) - grad_lse
    grads = _ops.na2d_backward(grad_out, q, k, v, rpb, lse, delta, ctx.partitions, ctx.scale)
    return *grads[:3], None if rpb is None else grads[3], None, None


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:7])
    ctx.partitions, ctx.scale = inputs[7:]


def _second_order(
    run: HeadRun, scale: float, saved: list[Tensor], table: Tensor | None, cotangents: list[Tensor], w: Tensor | None
) -> list[Tensor]:
    """Gradients of <x, grad_q> + <y, grad_k> + <z, grad_v> + <w, grad_rpb> in the inputs of `na2d_backward`."""
    g, q, k, v, lse, delta = saved
    x, y, z = cotangents
    qk, av, avt, window = _ops.na2d_qk, _ops.na2d_av, _ops.na2d_avt, run.window
    a = _probabilities(q, k, table, lse, run, scale)
    slope = qk(g, v, window) - delta[..., None]
    t = scale * (qk(x, k, window) + qk(q, y, window))  # cotangent of ds = a * slope
    if w is not None:
        t = t + reference.expand_bias(w, q.shape[1], q.shape[2], run.kernel, run.dilation)
    ds, e = a * slope, a * t
    es = a * (qk(g, z, window) + t * slope)  # cotangent of the scores
    grads = [
        av(a, z, window) + av(e, v, window),
        scale * (av(es, k, window) + av(ds, y, window)),
        scale * (avt(ds, x, window) + avt(es, q, window)),
        avt(e, g, window),
        -es.sum(-1),
        -e.sum(-1),
    ]
    if table is not None:
        grads.append(reference.collect_bias(es, run.kernel, run.dilation).flatten())
    return grads


def _na2d_second_gradient(ctx: Any, x: Tensor, y: Tensor, z: Tensor, w: Tensor) -> tuple[Tensor | None, ...]:
    g, q, k, v, rpb, lse, delta = ctx.saved_tensors
    dtypes = [t.dtype for t in (g, q, k, v, lse, delta)] + ([] if rpb is None else [rpb.dtype])
    runs: list[list[Tensor]] = []
    for run in head_runs(ctx.partitions):
        saved = [t[..., run.heads, :].to(lse.dtype) for t in (g, q, k, v)] + [t[..., run.heads] for t in (lse, delta)]
        cotangents = [t[..., run.heads, :].to(lse.dtype) for t in (x, y, z)]
        runs.append(
            _second_order(run, ctx.scale, saved, run.table(rpb), cotangents, None if rpb is None else run.table(w))
        )
    grads = [torch.cat(parts, 3 if i < 6 else 0).to(dtype) for i, (parts, dtype) in enumerate(zip(zip(*runs), dtypes))]
    return *grads[:4], None if rpb is None else grads[6], *grads[4:6], None, None


torch.library.register_autograd("styleloom::na2d", _na2d_gradient, setup_context=_save_forward)
torch.library.register_autograd("styleloom::na2d_backward", _na2d_second_gradient, setup_context=_save_backward)
