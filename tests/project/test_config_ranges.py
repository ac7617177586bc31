"""Numbers of a config: finite, within their field's range, checked before anything is built."""

import dataclasses
import json
import typing

import pytest
import torch
from support.tiny_runs import recipe

from dnnlib.config import MAX_LENGTH, Range, check, field_types, from_dict, set_field, to_dict
from dnnlib.errors import ConfigError, UserError
from training import networks
from training.config import TrainingConfig
from training.networks.registry import NetworkConfig, known_kinds
from training.objectives.base import ObjectiveConfig
from training.options import check_config
from training.presets import PRESETS
from training.run.checkpoint import read_config


def numbers(value, path=""):
    """Dotted paths of all numbers in plain data."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from numbers(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from numbers(item, f"{path}.{i}")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield path


def with_value(data, path: str, value):
    """`data` with another value at the path."""
    head, _, rest = path.partition(".")
    key = int(head) if isinstance(data, list) else head
    copy = list(data) if isinstance(data, list) else dict(data)
    copy[key] = with_value(data[key], rest, value) if rest else value
    return copy


PLAIN = json.loads(json.dumps(to_dict(recipe("ada"))))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 2**60, -(2**60)])
def test_no_number_may_be_endless(value):
    paths = list(numbers(PLAIN))
    assert len(paths) > 80
    for path in paths:
        with pytest.raises(ConfigError, match=path.split(".")[0]):
            from_dict(TrainingConfig, with_value(PLAIN, path, value))


@pytest.mark.parametrize(
    ("assignment"),
    [
        *("total_kimg=NaN", "total_kimg=-1", "G.mapping_layers=100000000", "G.num_layers=[10000000,1,1]"),
        *("workers=1000000", "batch=0", "seed=4294967296", "gpus=0", "kimg_per_tick=0", "loss.r1_interval=0"),
        *("G_opt.betas=[0,2]", "G_opt.lr=Infinity", "D.channel_max=0", "loss.style_mixing=1.5", "snap=0"),
        *("G.g_dict=[8,8,-8]", "G.w_dim=0", "ada.interval=0", "half_resolutions=-1", f"metrics={['x'] * 1001}"),
    ],
)
def test_out_of_range_is_a_line(assignment, tmp_path):
    """On the command line and in an edited file."""
    with pytest.raises(ConfigError) as e:
        set_field(recipe("ada"), assignment.replace("'", '"'))
    assert "\n" not in str(e.value)
    path, _, value = assignment.partition("=")
    changed = with_value(PLAIN, path, json.loads(value.replace("'", '"')))
    (tmp_path / "training_options.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match=path):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "missing config fields: G_opt.lr.start, G_opt.lr.end, G_opt.lr.kimg"),
        ({"start": 1, "end": 0}, "missing config field: G_opt.lr.kimg"),
        ({"start": 1, "end": 0, "kimg": 0, "x": 1}, "unknown config field: G_opt.lr.x"),
    ],
)
def test_half_a_ramp_is_a_line(value, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(TrainingConfig, with_value(PLAIN, "G_opt.lr", value))


def test_options_are_checked_too():
    """They set fields without asking."""
    cfg = recipe("ada")
    cfg.total_kimg = float("nan")
    with pytest.raises(ConfigError, match="total_kimg"):
        check_config(cfg)


def config_classes() -> list[type]:
    """TrainingConfig, all registered kinds, and whatever they hold."""
    found: list[type] = []
    pending = [TrainingConfig, *NetworkConfig.kinds.values(), *ObjectiveConfig.kinds.values()]
    while pending:
        cls = pending.pop()
        if cls not in found:
            found.append(cls)
            pending += [t for hint in field_types(cls).values() for t in parts(hint) if dataclasses.is_dataclass(t)]
    return found


def parts(hint):
    """The types that a type is made of; a number with a range is one part."""
    inner = () if typing.get_origin(hint) is typing.Annotated else typing.get_args(hint)
    return [hint] if not inner else [p for part in inner for p in parts(part)]


def test_every_number_has_a_range():
    bare = [
        f"{cls.__name__}.{name}"
        for cls in config_classes()
        for name, hint in field_types(cls).items()
        if {int, float} & set(filter(lambda t: isinstance(t, type), parts(hint)))
    ]
    assert not bare
    assert len(config_classes()) > 20


@pytest.mark.parametrize("kind", known_kinds())
def test_small_numbers_build_a_network_or_are_a_line(kind):
    """Such as leave a layer without channels."""
    plain = json.loads(json.dumps(to_dict(NetworkConfig.kinds[kind]())))
    refusals = []
    for path in numbers(plain):
        for value in (0, 1, 3, 48):
            try:
                cfg = networks.config_from_dict(with_value(plain, path, value))
                with torch.device("meta"):
                    networks.build(cfg)
            except UserError as e:
                refusals.append(str(e))
    assert refusals
    assert not any("\n" in message for message in refusals)


def test_long_lists_and_texts_are_refused():
    for path, value in (("metrics", ["x"] * (MAX_LENGTH + 1)), ("data.path", "x" * 5000), ("G.kind", [1])):
        with pytest.raises(ConfigError):
            from_dict(TrainingConfig, with_value(PLAIN, path, value))


def test_all_presets_are_within_the_ranges():
    for preset in PRESETS.values():
        check(preset.build(256, 8))


def test_defaults_are_within_the_ranges():
    """And ranges are found in the types at all."""
    found = 0
    for hint in field_types(TrainingConfig).values():
        found += any(isinstance(extra, Range) for extra in typing.get_args(hint))
        if dataclasses.is_dataclass(hint):
            found += sum("Range" in repr(inner) for inner in field_types(hint).values())
    assert found > 30
    check(TrainingConfig())
