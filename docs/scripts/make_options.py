"""Writes docs/options.md from the scripts' own options: `python docs/scripts/make_options.py`."""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import calc_metrics  # noqa: E402
import dataset_tool  # noqa: E402
import generate  # noqa: E402
import train  # noqa: E402
import training.networks.__main__  # noqa: E402
import training.sampling.demo  # noqa: E402
from dnnlib.cli import INTS, NETWORK_FILE, PATH  # noqa: E402
from training.options import OPTIONS  # noqa: E402
from training.presets import PRESETS  # noqa: E402

PAGE = ROOT / "docs" / "options.md"
HEAD = """# Options

Every script with its options, written by `python docs/scripts/make_options.py` from the scripts themselves; a test
holds that the two agree. `--help` says the same in the terminal. A path may begin with `~`; where a network file is
wanted, a URL will do. A mistake is answered by one line that begins with `Error:`, and exit status 2.
"""
TRAIN = """Options that are left out keep what the preset says. The third column is the field of the config that an
option sets: `--set FIELD=VALUE` reaches every other one, and `--dry-run` prints them all. See [Training](training.md).
"""
PICTURES = {
    "grid": ("80 samples", "samples.png"),
    "mix": ("Style mixing", "mix.png"),
    "walk": ("A walk through four styles", "walk.gif"),
    "attention": ("Attention of one sample", "attention.png"),
    "project": ("The average style, a target, its projection", "projection.png"),
    "explore": ("The page in the browser", "explore.png"),
    "report": ("The beginning of a run's report", "report.png"),
    "demo": ("The same latents while training went on", "timeline.png"),
}  # command -> what its picture shows, file in docs/images


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    parts += [
        "## train.py\n",
        _about(train.main),
        TRAIN,
        _train_table(),
        _presets(),
        "The beginning of a run's `report.html`:\n",
        _picture("report"),
    ]
    parts += ["## generate.py\n", _about(generate.main), "See [Generating](generate.md).\n", _table(generate.main)]
    parts += [_sub_command("generate.py", name, command) for name, command in generate.main.commands.items()]
    parts += ["## calc_metrics.py\n", _about(calc_metrics.main), "See [Metrics](metrics.md).\n"]
    parts += [_table(calc_metrics.main)]
    parts += ["## dataset_tool.py\n", _about(dataset_tool.main), "See [Data sets](datasets.md).\n"]
    parts += [_table(dataset_tool.main)]
    tool = training.networks.__main__.main
    parts += ["## python -m training.networks\n", _about(tool), "See [Network files](network-files.md).\n"]
    parts += [_sub_command("python -m training.networks", name, command) for name, command in tool.commands.items()]
    parts += [
        "## python -m training.sampling.demo\n",
        _about(training.sampling.demo.main),
        _table(training.sampling.demo.main),
        _picture("demo"),
    ]
    return "\n".join(part for part in parts if part)


def _sub_command(script: str, name: str, command: click.Command) -> str:
    arguments = "".join(f" {p.make_metavar(click.Context(command))}" for p in command.params if _is_argument(p))
    parts = [f"### {script.split()[-1]} {name}{arguments}\n", _about(command), _table(command), _picture(name)]
    return "\n".join(part for part in parts if part)


def _about(command: click.Command) -> str:
    """The first paragraph of the help."""
    text = inspect.cleandoc(command.help or "").split("\n\n")[0]
    return " ".join(text.split()) + "\n"


def _picture(name: str) -> str:
    return f"![{PICTURES[name][0]}](images/{PICTURES[name][1]})\n" if name in PICTURES else ""


def _table(command: click.Command) -> str:
    rows = [_row(p) for p in command.params if isinstance(p, click.Option)]
    return "\n".join(["| option | values | meaning |", "|---|---|---|", *rows]) + "\n"


def _row(option: click.Option) -> str:
    return f"| {_names(option)} | {_values(option)} | {_meaning(option)} |"


def _train_table() -> str:
    fields = {f"--{o.flag.lstrip('-')}": o.field or "" for o in OPTIONS}
    rows = []
    for option in (p for p in train.main.params if isinstance(p, click.Option)):
        field = fields.get(option.opts[0], "")
        name = f"`{field}`" if field else ""
        rows.append(f"| {_names(option)} | {_values(option)} | {name} | {_meaning(option)} |")
    return "\n".join(["| option | values | field | meaning |", "|---|---|---|---|", *rows]) + "\n"


def _presets() -> str:
    rows = [f"| `{name}` | {_cell(preset.summary)} | {_data(preset.data)} |" for name, preset in PRESETS.items()]
    return "\n".join(["| `--cfg` | what | `--data` |", "|---|---|---|", *rows]) + "\n"


def _data(path: str | None) -> str:
    return f"`{path}`" if path else "to be given"


def _names(option: click.Option) -> str:
    return ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))


def _values(option: click.Option) -> str:
    return _cell(" ".join(_value_words(option)))


def _value_words(option: click.Option) -> Iterator[str]:
    kind = option.type
    if option.is_flag:
        return
    if option.metavar:
        yield f"`{option.metavar}`"
    elif isinstance(kind, click.Choice):
        yield ", ".join(f"`{choice}`" for choice in kind.choices)
    elif isinstance(kind, (click.IntRange, click.FloatRange)):
        yield "number" if isinstance(kind, click.FloatRange) else "whole number"
        yield from _bounds(kind)
    else:
        words = {PATH: "path", NETWORK_FILE: "path", INTS: "list, as `256,64,16`", click.BOOL: "`1` or `0`"}
        yield words.get(kind, {"float": "number", "integer": "whole number"}.get(kind.name, "text"))


def _bounds(kind: click.IntRange | click.FloatRange) -> Iterator[str]:
    if kind.min is not None and kind.max is not None:
        yield f"from {kind.min} to {kind.max}"
    elif kind.min is not None:
        yield f"from {kind.min}"


def _meaning(option: click.Option) -> str:
    notes = []
    if option.required:
        notes.append("required")
    if option.multiple:
        notes.append("may be repeated")
    if option.show_default and option.default is not None:
        notes.append(f"default: {_default(option)}")
    text = " ".join((option.help or "").split())
    extra = f"[{'; '.join(notes)}]" if notes else ""
    return _cell(f"{text} {extra}".strip())


def _default(option: click.Option) -> str:
    if option.secondary_opts:
        return (option.opts if option.default else option.secondary_opts)[0]
    return str(option.default)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _is_argument(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Argument)


if __name__ == "__main__":
    PAGE.write_text(page())
