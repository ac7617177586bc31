"""What training needs of torch.distributed; every function also works in a single process without a group."""

import torch
import torch.distributed as dist


def rank() -> int:
    """This process's number, 0 for the one that writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def all_sum(x: torch.Tensor) -> torch.Tensor:
    """Sums `x` over all processes, in place, and returns it."""
    if dist.is_initialized():
        dist.all_reduce(x)
    return x


def all_max(x: torch.Tensor) -> torch.Tensor:
    """Elementwise maximum of `x` over all processes, in place, and returns it."""
    if dist.is_initialized():
        dist.all_reduce(x, op=dist.ReduceOp.MAX)
    return x


def barrier() -> None:
    """Waits until every process is here."""
    if dist.is_initialized():
        dist.barrier()
