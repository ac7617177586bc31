"""The click shell that all scripts share: bad input is one line on stderr and exit status 2, never a traceback."""

import os
import sys
from typing import Any

import click

from dnnlib.errors import UserError


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

    def main(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["standalone_mode"] = False
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
            fail("aborted")
        except UserError as e:
            fail(str(e))


class Command(_OneLineErrors, click.Command):
    """A click command with one-line errors: `@click.command(cls=Command)`."""


class Group(_OneLineErrors, click.Group):
    """A click group with one-line errors."""


class PathType(click.ParamType):
    """A path or URL option: expands `~`, which the shell leaves alone after `=`."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return os.path.expanduser(value)


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
INTS = IntList()
