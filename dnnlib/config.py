"""Dataclasses as configuration: to and from JSON, and dotted overrides such as `G.min_heads=8`.

A dataclass field is the only place where a default lives. Unknown keys are errors. A dataclass that derives
from `Tagged` is one of several kinds; its JSON form carries the kind's name, so a reader can rebuild it.
"""

import dataclasses
import json
import math
import reprlib
import types
import typing
from typing import Annotated, Any, ClassVar, TypeVar

from dnnlib.errors import ConfigError

T = TypeVar("T")

MAX_NUMBER = 2**53  # of any number in a config; NaN and infinity are refused everywhere
MAX_LENGTH = 1000  # entries of a list or table
MAX_TEXT = 4096  # characters


@dataclasses.dataclass(frozen=True)
class Range:
    """Bounds of a number, both included, as a part of a field's type: `Annotated[int, Range(1, 64)]`."""

    low: float
    high: float


Share = Annotated[float, Range(0, 1)]  # a part of a whole, a probability
Weight = Annotated[float, Range(0, 1e9)]  # a strength, a length of time: anything that isn't negative
Count = Annotated[int, Range(1, 2**20)]  # images, steps
Factor = Annotated[float, Range(0.001, 1000)]  # what something is multiplied by
Side = Annotated[int, Range(1, 2**16)]  # of an image, a map, a window; channels of a layer
Width = Annotated[int, Range(0, 2**16)]  # of a layer that may be left out, or whose size another field then says
Layers = Annotated[int, Range(0, 256)]  # one after another


class Tagged:
    """Base of config dataclasses of which one field may hold several kinds. `kind` is set by `register_kind`."""

    kind: ClassVar[str] = ""
    kinds: ClassVar[dict[str, type]] = {}


def register_kind(family: type[Tagged], kind: str, cls: type[Tagged]) -> None:
    """Makes `cls` the config that the name `kind` stands for within `family` (a subclass of Tagged)."""
    if "kinds" not in family.__dict__:
        family.kinds = {}
    if kind in family.kinds and family.kinds[kind].__qualname__ != cls.__qualname__:
        raise ValueError(f"two classes register the kind {kind!r}: {family.kinds[kind]} and {cls}")
    cls.kind = kind
    family.kinds[kind] = cls


def to_dict(cfg: Any) -> Any:
    """Config -> plain dicts, lists and scalars that `json` can write."""
    if dataclasses.is_dataclass(cfg) and not isinstance(cfg, type):
        head = {"kind": cfg.kind} if isinstance(cfg, Tagged) else {}
        return head | {f.name: to_dict(getattr(cfg, f.name)) for f in dataclasses.fields(cfg)}
    if isinstance(cfg, (list, tuple)):
        return [to_dict(v) for v in cfg]
    if isinstance(cfg, dict):
        return {k: to_dict(v) for k, v in cfg.items()}
    return cfg


def from_dict(cls: type[T], data: Any, path: str = "") -> T:
    """Plain data -> config of class `cls`. Raises ConfigError naming every unknown field and every misfit value."""
    if not isinstance(data, dict):
        raise ConfigError(f"{path or cls.__name__}: expected a table of fields, got {reprlib.repr(data)}")
    data = dict(data)
    if issubclass(cls, Tagged):
        cls = _kind_class(cls, data.pop("kind", cls.kind), path)
    known = field_types(cls)
    unknown = [f"{path}{k}" for k in data if k not in known]
    if unknown:
        named = ", ".join(sorted(unknown))
        raise ConfigError(f"unknown config field{'s' * (len(unknown) > 1)}: {named[:500]}")
    missing = [f"{path}{name}" for name in _required(cls) if name not in data]
    if missing:
        raise ConfigError(f"missing config field{'s' * (len(missing) > 1)}: {', '.join(missing)}")
    return cls(**{k: _convert(known[k], v, f"{path}{k}") for k, v in data.items()})


def check(cfg: Any) -> None:
    """ConfigError if a field of the config holds what its type doesn't allow; options set them without asking."""
    from_dict(type(cfg), to_dict(cfg))


def set_field(cfg: Any, assignment: str) -> None:
    """Applies one `path.to.field=value` in place; the value is JSON or, failing that, a bare string.

    Assigning `G.kind` swaps the config for another kind and keeps the fields that both have.
    """
    path, eq, text = assignment.partition("=")
    if not eq:
        raise ConfigError(f"--set wants path.to.field=value, got {assignment!r}")
    *parents, leaf = path.strip().split(".")
    owner, holder = None, cfg
    for name in parents:
        owner, holder = holder, _child(holder, name, path)
    if leaf == "kind" and isinstance(holder, Tagged) and owner is not None:
        base = field_types(type(owner))[parents[-1]]
        setattr(owner, parents[-1], _switch_kind(base, holder, text.strip(), path))
        return
    _child(holder, leaf, path)
    setattr(holder, leaf, _convert(field_types(type(holder))[leaf], parse_value(text), path))


def parse_value(text: str) -> Any:
    """The value of a `--set`: JSON where it parses as JSON, else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text.strip()


def field_types(cls: Any) -> dict[str, Any]:
    """Field name -> resolved type annotation of a config dataclass."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def _required(cls: Any) -> list[str]:
    """Names of the fields without a default."""
    return [f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING]


def _child(holder: Any, name: str, path: str) -> Any:
    names = [f.name for f in dataclasses.fields(holder)] if dataclasses.is_dataclass(holder) else []
    if name not in names:
        raise ConfigError(f"unknown config field {path!r}: known here are {', '.join(names) or 'none'}")
    return getattr(holder, name)


def _kind_class(base: Any, kind: str, path: str) -> type:
    """The class registered as `kind`, which must derive from `base`, the class that the field is declared with."""
    fitting = {k: cls for k, cls in base.kinds.items() if issubclass(cls, base)}
    if not isinstance(kind, str) or kind not in fitting:
        raise ConfigError(f"{path}kind: {reprlib.repr(kind)} is none of {', '.join(sorted(fitting))}")
    return fitting[kind]


def _switch_kind(base: type, old: Any, kind: str, path: str) -> Any:
    cls = _kind_class(base, kind, path.removesuffix("kind"))
    shared = set(field_types(cls)) & set(field_types(type(old)))
    defaults = type(old)()
    changed = {k: getattr(old, k) for k in shared if getattr(old, k) != getattr(defaults, k)}
    return cls(**changed)


def _convert(hint: Any, value: Any, path: str) -> Any:
    """Checks `value` against a type annotation and returns it in that type; ConfigError where it doesn't fit."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _within(args[1:], _convert(args[0], value, path), path)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(args, value, path)
    if isinstance(value, (list, tuple, dict)) and len(value) > MAX_LENGTH:
        raise ConfigError(f"{path}: {len(value)} entries are more than {MAX_LENGTH}")
    if hint is Any:
        return value
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return from_dict(hint, value, f"{path}.")
    if origin is typing.Literal:
        if isinstance(value, (str, int)) and value in args:
            return value
        raise ConfigError(f"{path}: {reprlib.repr(value)} is not one of {', '.join(map(str, args))}")
    if origin in (list, tuple):
        return _convert_sequence(origin, args, value, path)
    if origin is dict:
        if isinstance(value, dict):
            return {k: _convert(args[1], v, f"{path}.{k}") for k, v in value.items()}
        raise ConfigError(f"{path}: expected a table, got {reprlib.repr(value)}")
    return _convert_scalar(hint, value, path)


def _convert_union(args: tuple, value: Any, path: str) -> Any:
    if value is None and type(None) in args:
        return None
    errors = []
    for option in args:
        if option is type(None):
            continue
        try:
            return _convert(option, value, path)
        except ConfigError as e:
            errors.append(e)
    raise errors[
        -1 if isinstance(value, dict) else 0
    ]  # a table may be a part's, which the last type is, and lack fields


def _convert_sequence(origin: type, args: tuple, value: Any, path: str) -> Any:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{path}: expected a list such as [1,2], got {reprlib.repr(value)}")
    if origin is tuple and args[-1:] != (Ellipsis,):
        if len(args) != len(value):
            raise ConfigError(f"{path}: expected {len(args)} values, got {len(value)}")
        return tuple(_convert(a, v, path) for a, v in zip(args, value))
    return origin(_convert(args[0], v, path) for v in value)


def _within(bounds: tuple[Any, ...], value: Any, path: str) -> Any:
    for bound in bounds:
        if isinstance(bound, Range) and not bound.low <= value <= bound.high:
            raise ConfigError(f"{path}: {value!r} is not from {bound.low:.15g} to {bound.high:.15g}")
    return value


def _convert_scalar(hint: Any, value: Any, path: str) -> Any:
    if isinstance(value, (int, float)) and not (math.isfinite(value) and abs(value) <= MAX_NUMBER):
        raise ConfigError(f"{path}: {reprlib.repr(value)} is no number of a reasonable size")
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise ConfigError(f"{path}: a text of {len(value)} characters, more than {MAX_TEXT}")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is bool and value in (0, 1):
        return bool(value)
    if hint is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ConfigError(f"{path}: expected {hint.__name__}, got {reprlib.repr(value)}")
