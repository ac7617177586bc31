"""An optimiser's state by parameter names, checked before it is loaded.

Compiled optimisers trust the shapes and types of their state: what doesn't fit would make them write outside it.
"""

import inspect
from typing import Any

import torch
from torch import nn

from dnnlib.errors import UserError

State = dict[str, dict[str, torch.Tensor]]  # parameter -> slot (step, exp_avg, ...) -> tensor
MAX_STEP = 2**53


def optimizer_state(optimizer: torch.optim.Optimizer, module: nn.Module) -> State:
    """What the optimiser remembers of each of the module's parameters that it has moved."""
    return {name: dict(optimizer.state[p]) for name, p in _trained(optimizer, module).items() if p in optimizer.state}


def load_optimizer_state(optimizer: torch.optim.Optimizer, module: nn.Module, saved: Any, title: str) -> None:
    """Gives the optimiser what `optimizer_state` gave.

    Layers may have been frozen or thawed since: what is frozen now is left out, what is thawed starts afresh.
    Raises UserError naming the first misfit; then nothing has changed.
    """
    trained = _trained(optimizer, module)
    by_name = _by_name(saved, list(trained), title)
    strangers = by_name.keys() - trained.keys() - module.state_dict().keys()
    if strangers:
        raise UserError(f"{title}: there is no parameter {min(strangers)[:80]!a}")
    like = _slots(optimizer)
    wanted = {name: p for name, p in trained.items() if name in by_name}
    for name, p in wanted.items():
        _check(by_name[name], p, like, f"{title}: {name}")
    positions = {id(p): i for i, p in enumerate(trained.values())}
    state = {positions[id(p)]: {slot: _own(t, p) for slot, t in by_name[n].items()} for n, p in wanted.items()}
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def _trained(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, nn.Parameter]:
    """The optimiser's parameters by name, in its own order."""
    names = {id(p): name for name, p in module.named_parameters()}
    return {names[id(p)]: p for group in optimizer.param_groups for p in group["params"]}


def _by_name(saved: Any, names: list[str], title: str) -> dict[str, Any]:
    """The first release counted the parameters instead of naming them."""
    kinds = {type(key) for key in saved} if isinstance(saved, dict) else None
    if kinds is not None and kinds <= {str}:
        return saved
    if kinds != {int}:
        raise UserError(f"{title} is no table of parameters")
    if not all(0 <= i < len(names) for i in saved):
        raise UserError(f"{title} knows {len(saved)} parameters, this run trains {len(names)}: freeze the same layers")
    return {names[i]: slots for i, slots in saved.items()}


def _slots(optimizer: torch.optim.Optimizer) -> dict[str, bool]:
    """The names of what such an optimiser remembers, and whether each is of the parameter's shape (else a number)."""
    known = inspect.signature(type(optimizer)).parameters
    settings = {name: value for name, value in optimizer.defaults.items() if name in known}
    probe = nn.Parameter(torch.zeros(2))
    probe.grad = torch.zeros(2)
    trial = type(optimizer)([probe], **settings)
    trial.step()
    return {slot: value.shape == probe.shape for slot, value in trial.state[probe].items()}


def _check(slots: Any, p: nn.Parameter, like: dict[str, bool], title: str) -> None:
    if not isinstance(slots, dict) or slots.keys() != like.keys():
        raise UserError(f"{title} wants {', '.join(like)} and nothing else")
    for slot, t in slots.items():
        shape, dtype = (p.shape, p.dtype) if like[slot] else (torch.Size(), torch.float32)
        check_tensor(t, shape, dtype, f"{title}, {slot}")
        if not like[slot] and not 0 <= float(t) <= MAX_STEP:
            raise UserError(f"{title}, {slot} is {float(t)}")


def check_tensor(t: Any, shape: torch.Size, dtype: torch.dtype, title: str) -> None:
    """UserError unless `t` is a plain tensor of this shape and type."""
    if type(t) is not torch.Tensor or t.layout != torch.strided or t.is_meta or t.is_quantized:
        raise UserError(f"{title} is no plain tensor")
    if t.shape != shape:
        raise UserError(f"{title} has shape {_text(t.shape)} instead of {_text(shape)}")
    if t.dtype != dtype:
        raise UserError(f"{title} has type {t.dtype} instead of {dtype}")


def _own(t: torch.Tensor, p: nn.Parameter) -> torch.Tensor:
    """A copy: two slots of a file may share one memory, and an expanded tensor has less than it shows."""
    return torch.empty_like(p if t.shape == p.shape else t, dtype=t.dtype, requires_grad=False).copy_(t)


def _text(shape: torch.Size) -> str:
    return "x".join(map(str, shape)) or "scalar"
