"""Decides, per call, between the registered op and the plain reference."""

import torch
from torch._subclasses.fake_tensor import FakeTensor

from torch_utils.ops.build import library
from torch_utils.ops.selection import choice


def _ensure(device: str) -> bool:
    return library.ensure(device).loaded


# As in selection.py.
_ensure._dynamo_marked_constant = True  # type: ignore[attr-defined]


def use_reference(x: torch.Tensor) -> bool:
    """True if the differentiable PyTorch form must run; otherwise the kernels of x's device are loaded if they can be.

    Raises:
        RuntimeError: compiled kernels are forced by `ops.use("compiled")` but can't be had.
    """
    if choice() == "ref" or torch._C._are_functorch_transforms_active():
        return True  # torch.func differentiates plain PyTorch only, not registered ops
    device = x.device.type
    if device == "meta" or isinstance(x, FakeTensor):
        return False
    if not _ensure(device) and choice() == "compiled":
        raise RuntimeError(f"ops.use('compiled'): no kernels for {device}: {library.ensure(device).reason}")
    return False


def autocast_dtype(x: torch.Tensor) -> torch.dtype:
    """The dtype that an op which autocast lowers runs in: autocast's inside its region (float64 excepted), else x's."""
    device = x.device.type
    if device != "meta" and x.dtype != torch.float64 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype
