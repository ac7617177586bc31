"""The PyPI package natten as one more implementation of neighbourhood attention.

Its forward pass takes the place of ours and gives the log-sum-exps too, from which our own ops compute all derivatives:
so the second one exists, which natten doesn't have.
"""

import importlib.util
import logging
from collections.abc import Callable
from functools import cache
from statistics import median

import torch

from torch_utils.ops.neighborhood_attention import registered

Tensor = torch.Tensor
log = logging.getLogger(__name__)
_SCHEMA = "(Tensor q, Tensor k, Tensor v, Tensor? rpb, int[] partitions, float scale) -> (Tensor, Tensor)"
_RUNS = 5  # of each side, when the faster one is looked for
_faster: dict[tuple[object, ...], bool] = {}

torch.library.define("styleloom::na2d_natten", _SCHEMA)


@torch.library.impl("styleloom::na2d_natten", "default")
def _na2d_natten(
    q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, partitions: list[int], scale: float
) -> tuple[Tensor, Tensor]:
    """As `styleloom::na2d`, without a bias. Both packages take [N, H, W, heads, D] and count dilation in positions."""
    from natten.functional import na2d

    assert rpb is None  # `why_not` has seen to it
    outputs, sums = [], []
    for run in registered.head_runs(partitions):
        q1, k1, v1 = (t[..., run.heads, :].detach().contiguous() for t in (q, k, v))
        out, lse = na2d(q1, k1, v1, kernel_size=run.kernel, dilation=run.dilation, scale=scale, return_lse=True)
        outputs.append(out)
        sums.append(lse.to(registered.sum_dtype(q.dtype)))
    return torch.cat(outputs, 3), torch.cat(sums, 3)


torch.library.register_fake("styleloom::na2d_natten")(registered._na2d_shape)
torch.library.register_autograd(
    "styleloom::na2d_natten", registered._na2d_gradient, setup_context=registered._save_forward
)


@cache
def _why_not_installed(device: str) -> str | None:
    if importlib.util.find_spec("natten") is None:
        return "natten is not installed (pip install 'styleloom[natten]')"
    import natten

    if device == "cuda" and not natten.HAS_LIBNATTEN:
        return "natten is installed without its CUDA library"
    return None


# As in selection.py: compiled code keeps what was so when it was traced.
_why_not_installed._dynamo_marked_constant = True  # type: ignore[attr-defined]


def why_not(q: Tensor, rpb: Tensor | None, partitions: list[int]) -> str | None:
    """Why natten can't compute this, or None if it can."""
    if rpb is not None:
        return "natten has no position bias"
    if q.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"natten has no kernel for {q.dtype}"
    if q.device.type == "cuda" and q.shape[4] % 8:
        return f"natten needs channels per head in multiples of 8, not {q.shape[4]}"
    if any(min(run.kernel) < 2 for run in registered.head_runs(partitions)):
        return "natten needs a kernel_size of 2 or more"
    if q.numel() == 0:
        return "the tensors are empty"
    return _why_not_installed(q.device.type)


def is_faster(q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, partitions: list[int], scale: float) -> bool:
    """Whether natten serves these tensors, and faster than our kernels: measured once for each shape and dtype, on a
    GPU, and remembered by this process.

    Never where deterministic algorithms are asked for, since the choice depends on timing; nor while torch.compile
    traces.
    """
    if q.device.type != "cuda" or torch.are_deterministic_algorithms_enabled() or torch.compiler.is_compiling():
        return False
    if why_not(q, rpb, partitions) is not None:
        return False
    key = (q.device, q.dtype, tuple(q.shape), tuple(partitions))
    if key not in _faster:
        arguments = (q.detach(), k.detach(), v.detach(), None, partitions, scale)
        ours = _milliseconds(lambda: torch.ops.styleloom.na2d(*arguments))
        theirs = _milliseconds(lambda: torch.ops.styleloom.na2d_natten(*arguments))
        _faster[key] = theirs < ours
        log.info("na2d of %s, %s: ours %.3f ms, natten %.3f ms", tuple(q.shape), q.dtype, ours, theirs)
    return _faster[key]


def _milliseconds(work: Callable[[], object]) -> float:
    """Median time of a piece of GPU work."""
    work()  # what only the first run needs
    times = []
    for _ in range(_RUNS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return median(times)
