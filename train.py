"""Trains a generator: options -> config -> one call of the trainer."""

import json
from collections.abc import Callable
from typing import Any

import click
import torch

from dnnlib.cli import PATH, Command
from dnnlib.config import to_dict
from dnnlib.plugins import import_file
from training.config import TrainingConfig
from training.launch import launch, process_count
from training.options import OPTIONS, check_config, resolve
from training.presets import PRESETS


def config_options(command: Callable) -> Callable:
    """One click option per row of the table. All default to None: defaults live in the config."""
    for option in reversed(OPTIONS):
        command = click.option(option.flag, option.name, type=option.type, default=None, help=option.help)(command)
    return command


@click.command(cls=Command, context_settings={"max_content_width": 120})
@click.option("--outdir", type=PATH, default="training-runs", show_default=True, help="Where run folders are made")
@click.option("--cfg", "preset", type=click.Choice(list(PRESETS)), default="auto", show_default=True, help="Preset")
@click.option("--gpus", type=click.IntRange(min=1), help="Processes  [default: one per GPU, or 1 on a CPU]")
@config_options
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Any config field, e.g. G.w_dim=256")
@click.option("--import", "plugins", type=PATH, multiple=True, help="Python file that registers networks or metrics")
@click.option("-n", "--dry-run", is_flag=True, help="Print the whole config and the network sizes, then stop")
def main(
    outdir: str,
    preset: str,
    gpus: int | None,
    settings: tuple[str, ...],
    plugins: tuple[str, ...],
    dry_run: bool,
    **values: Any,
) -> None:
    """Train a generator on a data set made by dataset_tool.py.

    \b
    python train.py --cfg=demo
    python train.py --outdir=runs --data=cifar10.zip --cfg=cifar --g_dict=256,64,16 --num_layers=1,2,2 --depth=32
    """
    for file in plugins:
        import_file(file)
    cfg, dataset = resolve(preset, process_count(gpus), values, settings, needs_data=not dry_run)
    sizes = check_config(cfg)
    print_config(cfg, *sizes)
    if dry_run:
        return
    assert dataset is not None
    say_what_has_no_effect(cfg)
    launch(cfg, outdir, dataset.name, plugins)


def print_config(cfg: TrainingConfig, g_size: int, d_size: int) -> None:
    """The whole resolved config and the networks' exact sizes."""
    click.echo(json.dumps(to_dict(cfg), indent=2))
    click.echo(f"G: {cfg.G.kind}, {g_size:,} parameters")
    click.echo(f"D: {cfg.D.kind}, {d_size:,} parameters")


def say_what_has_no_effect(cfg: TrainingConfig) -> None:
    """The known options that only a GPU heeds."""
    if torch.cuda.is_available():
        return
    for name, value in (("--nobench", cfg.nobench), ("--allow-tf32", cfg.allow_tf32)):
        if value:
            click.echo(f"{name} has no effect on a CPU")


if __name__ == "__main__":
    main()
