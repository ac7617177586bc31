"""Building a module whose weights are going to be replaced anyway, without spending time and memory on them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

_WEIGHT_MAKERS = (torch.randn, torch.rand, torch.normal, torch.empty)


class _WeightsWithoutValues(TorchFunctionMode):
    """What is drawn at random or left empty has a shape but no memory (the `meta` device); the rest is real."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _WEIGHT_MAKERS:
            kwargs = {name: value for name, value in kwargs.items() if name != "generator"} | {"device": "meta"}
        return func(*args, **kwargs)


def build_with(build: Callable[[], nn.Module], tensors: Mapping[str, torch.Tensor]) -> nn.Module | None:
    """`build()` with `tensors` as its parameters and buffers (not copies), their initialisation skipped.

    The names must be those of its state_dict. None if the module can't be built that way: because it computes with
    its initial weights, keeps such values elsewhere, or shares one tensor under two names.
    """
    try:
        with _WeightsWithoutValues():
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
