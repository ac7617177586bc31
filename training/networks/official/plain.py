"""What official files hold, as plain data: modules that were pickled whole, and settings as JSON has them."""

from collections.abc import Iterable
from typing import Any, Self

import torch

from torch_utils.files.safe_pickle import MAX_NAME, DamagedFile, Stateful
from torch_utils.files.torch_files import PlainNamespace


class OfficialModule(Stateful):
    """A pickled torch module: class name, state and, by name, sub-modules; none of its code."""

    def __init__(self, class_name: str) -> None:
        self.class_name = class_name
        self.attributes: dict[str, Any] = {}

    def set_state(self, state: Any) -> None:
        self.attributes = dict(state)

    @property
    def modules(self) -> dict[str, Self]:
        """Direct sub-modules."""
        found = self.attributes.get("_modules") or {}
        return {name: module for name, module in found.items() if isinstance(module, type(self))}

    def child(self, name: str) -> Self:
        """A direct sub-module; DamagedFile if it is missing."""
        if name not in self.modules:
            raise DamagedFile(f"the official {self.class_name} has no module {name!r}")
        return self.modules[name]

    def tensors(self, prefix: str = "") -> dict[str, torch.Tensor]:
        """All parameters and buffers, by dotted name. ValueError if such a name becomes very long."""
        if len(prefix) > MAX_NAME:
            raise ValueError("modules nested in modules without end")
        own = (self.attributes.get("_parameters") or {}) | (self.attributes.get("_buffers") or {})
        found = {prefix + name: t for name, t in own.items() if isinstance(t, torch.Tensor)}
        for name, module in self.modules.items():
            found |= module.tensors(f"{prefix}{name}.")
        return found


def json_data(value: Any) -> Any:
    """Namespaces become dicts, tuples lists; what JSON has no form for (sets, tensors) becomes short text."""
    if isinstance(value, PlainNamespace):
        value = value.attributes
    if isinstance(value, dict):
        return {str(k): json_data(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_data(v) for v in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)[:200]


def count_modules(names: Iterable[str], prefix: str, first: int = 0) -> int:
    """How many modules PREFIX0, PREFIX1, ... tensors of these names belong to. ValueError if there is none."""
    found = {name.removeprefix(prefix).partition(".")[0] for name in names if name.startswith(prefix)}
    count = 0
    while str(first + count) in found:
        count += 1
    if count == 0:
        raise ValueError(f"no {prefix}{first}")
    return count
