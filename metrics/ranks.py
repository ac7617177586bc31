"""Sharing a pass of images between processes, so that the result doesn't depend on how many there are."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from dnnlib import UserError
from torch_utils import distributed

T = TypeVar("T")


def rank_and_count() -> tuple[int, int]:
    """(this process's rank, number of processes); (0, 1) without torch.distributed."""
    return distributed.rank(), distributed.world_size()


def shared_spans(count: int, batch: int) -> Iterator[list[tuple[int, int]]]:
    """Rounds of work: in each, span r = (start, stop) belongs to rank r; spans follow each other and cover 0..count.

    Spans of the last round may be empty.
    """
    _, ranks = rank_and_count()
    for first in range(0, count, batch * ranks):
        starts = [min(first + r * batch, count) for r in range(ranks + 1)]
        yield [(start, min(start + batch, count)) for start in starts[:ranks]]


def gather_rows(rows: torch.Tensor, counts: list[int]) -> torch.Tensor | None:
    """Rows of all ranks in rank order, on rank 0 (None elsewhere). Rank r brings counts[r] rows [counts[r], ...]."""
    rank, ranks = rank_and_count()
    if ranks == 1:
        return rows
    if dist.get_backend() == "gloo":
        rows = rows.cpu()
    longest = max(counts)
    padded = rows.new_zeros((longest, *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(ranks)] if rank == 0 else None
    dist.gather(padded, parts, dst=0)
    return torch.cat([part[:n] for part, n in zip(parts, counts)]) if parts is not None else None


def agreed(compute: Callable[[], T]) -> T:
    """Runs `compute` on every rank; if it fails with a UserError on any, every rank raises the first such error.

    Without this a rank that stops would leave the others waiting for it.
    """
    _, ranks = rank_and_count()
    result: Any = None
    error: UserError | None = None
    try:
        result = compute()
    except UserError as e:
        error = e
    if ranks > 1:
        errors: list[Any] = [None] * ranks
        dist.all_gather_object(errors, error)
        error = next((e for e in errors if e is not None), None)
    if error is not None:
        raise error
    return result


def from_rank_0(compute: Callable[[], T]) -> T:
    """Runs `compute` on rank 0 only and gives its result (or its UserError) to all ranks."""
    rank, ranks = rank_and_count()
    result = agreed(compute if rank == 0 else _nothing)
    if ranks > 1:
        box = [result]
        dist.broadcast_object_list(box, src=0)
        result = box[0]
    return result  # type: ignore[return-value]


def _nothing() -> Any:
    return None
