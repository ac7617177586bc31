"""`styleloom train|generate|metrics|dataset|networks`: the scripts by one command, which works in any folder."""

import dnnlib.startup  # noqa: F401  (first, because the other imports take seconds)

# isort: split
import importlib
from typing import Any

import click

from dnnlib.cli import Group

# Name -> module that has it as `main`, first line of its help. What isn't asked for isn't imported.
COMMANDS = {
    "train": ("styleloom.scripts.train", "Train a generator (python train.py)"),
    "generate": ("styleloom.scripts.generate", "Make pictures with a network (python generate.py)"),
    "metrics": ("styleloom.scripts.calc_metrics", "Measure a network or pictures (python calc_metrics.py)"),
    "dataset": ("styleloom.scripts.dataset_tool", "Make a data set of pictures (python dataset_tool.py)"),
    "networks": ("training.networks.__main__", "Look at network files (python -m training.networks)"),
}


class Scripts(Group):
    """A group whose commands are imported when they are called, because that takes seconds."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found: Any = importlib.import_module(COMMANDS[cmd_name][0])
        return found.main

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Scripts, context_settings={"max_content_width": 120})
@click.version_option(package_name="styleloom", message="%(prog)s %(version)s")
def main() -> None:
    """Style-based transformer GANs: train, sample, measure. Every command has its own --help."""


if __name__ == "__main__":
    main()
