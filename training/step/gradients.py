"""Gradients over all processes, and the random seed of each micro-batch."""

import hashlib

import torch
from torch import nn

from torch_utils import distributed


def sync_gradients(parameters: list[nn.Parameter]) -> int:
    """Sums the gradients over all processes as one flat float32 buffer, and replaces what is not finite by 0.

    Returns how many gradient values were not finite. Parameters that got no gradient in any process keep None.
    """
    if not parameters:
        return 0
    used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=parameters[0].device)
    used = distributed.all_max(used)
    active = [p for p, u in zip(parameters, used.tolist()) if u]
    if not active:
        return 0
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in active])
    distributed.all_sum(flat)
    bad = int((~flat.isfinite()).sum())
    if bad:
        torch.nan_to_num(flat, nan=0.0, posinf=0.0, neginf=0.0, out=flat)
    for p, g in zip(active, flat.split([p.numel() for p in active])):
        p.grad = g.view_as(p)
    return bad


def keyed_seed(seed: int, step: int, phase: int, micro_batch: int) -> int:
    """The random seed of one micro-batch: the same whichever process computes it, and whenever."""
    key = f"{seed}/{step}/{phase}/{micro_batch}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1
