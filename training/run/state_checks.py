"""A training state from a file, held against the state of the trainer that is to take it, before anything is taken."""

import math
import re
from typing import Any

import torch

from dnnlib.errors import UserError
from training.run.optimizer_state import check_tensor

MAX_COUNT = 2**53  # of steps, images, ticks
MAX_NAMED = 10_000  # entries of a table or list
_SUMS = {"stats": 3, "means": 2}  # (count, sum, sum of squares); (sum, count)
_FILE_NAME = re.compile(r"[\w.-]{1,200}", re.ASCII)  # leads to no other folder


def check_state(saved: dict[str, Any], live: dict[str, Any]) -> None:
    """UserError unless all of `saved` fits `Trainer.state()`, except for the optimisers, which know best themselves."""
    check_entries(saved, {name: value for name, value in live.items() if name not in ("optimizers", "modules")})
    for name, length in _SUMS.items():
        if any(len(vector) != length for vector in saved[name].values()):
            raise UserError(f"the training state's {name} are not sums of {length} values")
    for name in ("optimizers", "modules"):
        if not isinstance(saved.get(name), dict) or not live[name].keys() <= saved[name].keys():
            raise UserError(f"the training state's {name} are not {', '.join(live[name])}")
    for name, tensors in live["modules"].items():
        check_like(saved["modules"][name], tensors, f"the run's {name} is another network")


def check_entries(saved: dict[str, Any], live: dict[str, Any]) -> None:
    """UserError unless `saved` has all entries of `live`, and they are like those."""
    for name, value in live.items():
        if name not in saved:
            raise UserError(f"the training state has no {name}")
        check_like(saved[name], value, f"the training state's {name}")


def check_like(saved: Any, live: Any, title: str) -> None:
    """UserError unless `saved` has the structure of `live`: the same names, and values of the same kinds.

    Tensors must agree in shape and type. Numbers must be finite, counts not negative, texts file names. What is None in
    `live` may be a text. A table that is empty in `live` may hold float64 vectors (running sums) under any names.
    """
    if isinstance(live, dict):
        _check_table(saved, live, title)
    elif isinstance(live, torch.Tensor):
        check_tensor(saved, live.shape, live.dtype, title)
    elif isinstance(live, list):
        if not isinstance(saved, list) or len(saved) > MAX_NAMED or not all(_is_name(v) for v in saved):
            raise UserError(f"{title} is no list of names")
    elif live is None or isinstance(live, str):
        if saved is not None and not _is_name(saved):
            raise UserError(f"{title} is no file name: {saved!r:.80}")
    elif not _is_number(saved, type(live)):
        raise UserError(f"{title} is {saved!r:.80}, not a {'count' if type(live) is int else 'finite number'}")


def _check_table(saved: Any, live: dict[Any, Any], title: str) -> None:
    if not isinstance(saved, dict) or len(saved) > MAX_NAMED:
        raise UserError(f"{title} is no table")
    if not live:
        for name, value in saved.items():
            if not isinstance(name, str) or not isinstance(value, torch.Tensor) or value.dim() != 1:
                raise UserError(f"{title} is no table of sums")
            check_tensor(value, value.shape, torch.float64, f"{title}, {name[:80]!a}")
        return
    for name in live.keys() ^ saved.keys():
        raise UserError(f"{title}: {name!r:.80} {'is missing' if name in live else 'belongs nowhere'}")
    for name, value in live.items():
        check_like(saved[name], value, f"{title}, {name}")


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and _FILE_NAME.fullmatch(value) is not None


def _is_number(value: Any, kind: type) -> bool:
    if kind is bool:
        return type(value) is bool
    if kind is float and type(value) is float:
        return math.isfinite(value) and abs(value) <= MAX_COUNT
    return type(value) is int and 0 <= value <= MAX_COUNT
