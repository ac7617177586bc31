"""The click shell that all scripts share: bad input is one line on stderr and exit status 2, never a traceback."""

import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from dnnlib.errors import UserError, disk_error

INTERRUPTED = 130  # exit status of a command that Ctrl-C ended, as shells have it


_COMMANDS = {"train.py": "train", "generate.py": "generate", "calc_metrics.py": "metrics", "dataset_tool.py": "dataset"}


def command_line(script: str) -> str:
    """How the user calls a script in a message: `python train.py`, or `styleloom train` where that was called."""
    own = Path(sys.argv[0])
    is_styleloom = own.stem == "styleloom" or own.parts[-2:] == ("styleloom", "__main__.py")
    return f"styleloom {_COMMANDS[script]}" if is_styleloom else f"python {script}"


def counted(count: int, thing: str) -> str:
    """`1 picture`, `2 pictures`."""
    return f"{count} {thing}{'s' * (count != 1)}"


def printable(text: str) -> str:
    """`text` with what a terminal would obey (escape sequences, text direction) or could not show spelled out."""
    return "".join(ch if ch.isprintable() or ch in "\n\t" else ascii(ch)[1:-1] for ch in text)


def say(text: str) -> None:
    """A line on stdout that may hold text from a file of a stranger's."""
    click.echo(printable(text))


def fail(message: str) -> None:
    """Prints `Error: message` as one line and exits with status 2."""
    click.echo("Error: " + printable(" ".join(str(message).split())), err=True)
    sys.exit(2)


class _OneLineErrors:
    """Mixin for click commands whose errors are one line each."""

    def __init__(self, *args: Any, goes_on: bool = False, **kwargs: Any):
        """`goes_on`: the same command, given again after an interruption, continues its work."""
        super().__init__(*args, **kwargs)
        self._goes_on = goes_on

    def invoke(self, ctx: click.Context) -> Any:
        """The command itself; commands of a group know best what the same command does after an interruption."""
        try:
            return super().invoke(ctx)  # type: ignore[misc]
        except KeyboardInterrupt:
            done = "goes on where this one stopped" if self._goes_on else "starts from the beginning"
            click.echo(f"\ninterrupted; the same command again {done}", err=True)
            sys.exit(INTERRUPTED)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["standalone_mode"] = False
        if "dnnlib.startup" in sys.modules:
            sys.modules["dnnlib.startup"].finished()
        try:
            return super().main(*args, **kwargs)  # type: ignore[misc]
        except click.exceptions.NoArgsIsHelpError as e:
            click.echo(e.format_message(), err=True)
            sys.exit(2)
        except click.ClickException as e:
            fail(e.format_message())
        except click.exceptions.Exit as e:
            sys.exit(e.exit_code)
        except click.Abort:
            sys.exit(INTERRUPTED)
        except UserError as e:
            fail(str(e))
        except OSError as e:
            found = disk_error(e)
            if found is None:
                raise
            fail(str(found))


class Command(_OneLineErrors, click.Command):
    """A click command with one-line errors: `@click.command(cls=Command)`."""

    def __init__(self, *args: Any, groups: Mapping[str, Sequence[str]] | None = None, **kwargs: Any):
        """`groups`: for --help, heading -> options that stand under it; the others come last, under `Others`."""
        super().__init__(*args, **kwargs)
        self._groups = groups or {}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options for --help, under the headings of the groups where there are some."""
        if not self._groups:
            super().format_options(ctx, formatter)
            return
        left = {param.opts[0]: param.get_help_record(ctx) for param in self.get_params(ctx)}
        for heading, flags in self._groups.items():
            self._section(formatter, heading, [left.pop(flag) for flag in flags])
        self._section(formatter, "Others", list(left.values()))

    def _section(self, formatter: click.HelpFormatter, heading: str, records: Sequence[tuple[str, str] | None]) -> None:
        shown = [record for record in records if record is not None]
        if shown:
            with formatter.section(heading):
                formatter.write_dl(shown)


class Group(_OneLineErrors, click.Group):
    """A click group with one-line errors."""


class PathType(click.ParamType):
    """A path or URL option: expands `~`, which the shell leaves alone after `=`."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return os.path.expanduser(value)


def newest_snapshot(path: str) -> str:
    """The newest network snapshot of a run's folder; any other path as it is. UserError if the folder holds none."""
    if not os.path.isdir(path):
        return path
    snapshots = [name for name in os.listdir(path) if re.fullmatch(r"network-snapshot-\d+\.pkl", name)]
    if not snapshots:
        raise UserError(f"the folder {path} holds no network-snapshot-*.pkl")
    return os.path.join(path, max(snapshots, key=lambda name: (len(name), name)))


class NetworkType(PathType):
    """A network file or URL; a run's folder stands for its newest snapshot."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return newest_snapshot(super().convert(value, param, ctx))
        except UserError as e:
            self.fail(str(e), param, ctx)


class Number(click.FloatRange):
    """A finite number, within bounds where there are some. (To click's own type NaN lies in every range.)"""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


class IntList(click.ParamType):
    """`256,64,16` -> [256, 64, 16]."""

    name = "ints"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        try:
            return [int(part) for part in value.split(",")]
        except ValueError:
            self.fail(f"{value!r} is not a list of whole numbers such as 256,64,16", param, ctx)


PATH = PathType()
NETWORK_FILE = NetworkType()
NUMBER = Number()
SEED = click.IntRange(0, 2**32 - 1)  # what numpy's generators take
INTS = IntList()
