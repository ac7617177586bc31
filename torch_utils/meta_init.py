"""Building a module whose weights are going to be replaced anyway: without spending time and memory on them, and
without trusting that its config asks for no more than the weights that are there."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from dnnlib.errors import UserError

_WEIGHT_MAKERS = (torch.randn, torch.rand, torch.normal, torch.empty)
_OTHER_MAKERS = (torch.zeros, torch.ones, torch.full, torch.arange, torch.linspace, torch.eye)


class _Construction(TorchFunctionMode):
    """While a module is built: counts what it allocates; weights have a shape but no memory if `blank`.

    Weights are what is drawn at random or left empty; they come on the `meta` device.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], blank: bool) -> None:
        super().__init__()
        self.blank = blank
        self.calls_left = 20 * len(tensors) + 1_000
        self.elements_left = 4 * sum(t.numel() for t in tensors.values()) + 2**24

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func in _WEIGHT_MAKERS or func in _OTHER_MAKERS:
            without_memory = {k: v for k, v in kwargs.items() if k not in ("generator", "pin_memory")}
            shape = func(*args, **without_memory | {"device": "meta"})
            self._spend(shape.numel())
            if self.blank and func in _WEIGHT_MAKERS:
                return shape
        return func(*args, **kwargs)

    def _spend(self, elements: int) -> None:
        self.calls_left -= 1
        self.elements_left -= elements
        if self.calls_left < 0 or self.elements_left < 0:
            raise UserError("its config asks for a far larger network than its tensors make")


def build_within(build: Callable[[], nn.Module], tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    """`build()` with its own weights. Raises UserError if it allocates far more than `tensors` hold."""
    with _Construction(tensors, blank=False):
        return build()


def build_with(build: Callable[[], nn.Module], tensors: Mapping[str, torch.Tensor]) -> nn.Module | None:
    """`build()` with `tensors` as its parameters and buffers (not copies), their initialisation skipped.

    The names must be those of its state_dict. None if the module can't be built that way: because it computes with
    its initial weights, keeps such values elsewhere, or shares one tensor under two names. Raises UserError as above.
    """
    try:
        with _Construction(tensors, blank=True):
            module = build()
    except (RuntimeError, NotImplementedError):
        return None
    own = module.state_dict(keep_vars=True)
    if len({id(t) for t in own.values()}) < len(own) or own.keys() != tensors.keys():
        return None
    if any(t.shape != tensors[name].shape or t.dtype != tensors[name].dtype for name, t in own.items()):
        return None
    module.load_state_dict(dict(tensors), assign=True)
    remaining = [*module.parameters(), *module.buffers()]
    return None if any(t.is_meta for t in remaining) else module
