"""Sharing a pass of images between processes, so that the result doesn't depend on how many there are."""

from collections.abc import Iterator

import torch
import torch.distributed as dist

from torch_utils import distributed


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
