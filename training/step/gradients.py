"""Gradients over all processes, and the random seed of each micro-batch."""

import hashlib

import torch
from torch import nn

from torch_utils import distributed


def sync_gradients(parameters: list[nn.Parameter]) -> torch.Tensor | int:
    """Sums the gradients over all processes as one flat float32 buffer, and replaces what is not finite by 0.

    They come back in the memory layout of their parameters: compiled optimisers go by the places in memory, and mix up
    the elements otherwise.

    Returns how many gradient values were not finite, on the device: a single process doesn't wait for it. Parameters
    that got no gradient in any process keep None.
    """
    active = _with_gradients(parameters)
    if not active:
        return 0
    flat = torch.cat([_laid_out_like(p).as_strided([p.numel()], [1]) for p in active])
    distributed.all_sum(flat)
    if flat.device.type == "cpu" and flat.sum().isfinite():  # nothing waits here, and one pass is the quickest
        bad: torch.Tensor | int = 0
    else:
        bad = (~flat.isfinite()).sum()
        torch.nan_to_num(flat, nan=0.0, posinf=0.0, neginf=0.0, out=flat)
    for p, g in zip(active, flat.split([p.numel() for p in active])):
        p.grad = g.as_strided(p.shape, p.stride(), g.storage_offset())
    return bad


def _laid_out_like(p: nn.Parameter) -> torch.Tensor:
    """The gradient of p, zeros if it has none, its elements where p has them."""
    if p.grad is None:
        return torch.zeros_like(p)
    return p.grad if p.grad.stride() == p.stride() else torch.empty_like(p).copy_(p.grad)


def _with_gradients(parameters: list[nn.Parameter]) -> list[nn.Parameter]:
    """Those that got a gradient in any process."""
    has = [p.grad is not None for p in parameters]
    if distributed.world_size() > 1 and parameters:
        table = torch.tensor(has, dtype=torch.int32, device=parameters[0].device)
        has = distributed.all_max(table).tolist()
    return [p for p, is_used in zip(parameters, has) if is_used]


def keyed_seed(seed: int, step: int, phase: int, micro_batch: int) -> int:
    """The random seed of one micro-batch: the same whichever process computes it, and whenever."""
    key = f"{seed}/{step}/{phase}/{micro_batch}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1
