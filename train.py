"""Trains a generator: options -> config -> one call of the trainer."""

import dnnlib.startup  # noqa: F401  (first, because the other imports take seconds)

# isort: split
import json
import os
from collections.abc import Callable
from typing import Any

import click
import torch

from dnnlib.cli import PATH, Command, say
from dnnlib.config import to_dict
from dnnlib.errors import UserError
from dnnlib.plugins import import_file
from metrics import require_detectors
from torch_utils import devices, distributed
from training.config import TrainingConfig
from training.dataset import ImageDataset
from training.launch import Place, launch
from training.networks.image_space import build_space
from training.options import (
    OPTIONS,
    check_config,
    check_source,
    drop_missing_metrics,
    drop_pictures,
    resolve,
    resolve_options,
    resolve_run,
)
from training.presets import PRESETS
from training.run.checkpoint import newest_run
from training.run.run_folder import run_description


class PresetName(click.Choice):
    """The presets that are known so far; `resolve` checks the name, when --import files have registered theirs."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value


def config_options(command: Callable) -> Callable:
    """One click option per row of the table. All default to None: defaults live in the config."""
    for option in reversed(OPTIONS):
        command = click.option(option.flag, option.name, type=option.type, default=None, help=option.help)(command)
    return command


# Headings of --help.
GROUPS = {
    "What to train, on what": ["--cfg", "--config", "--data", "--cond", "--subset", "--mirror", "--resume", "--set"],
    "How long, how much at once": ["--kimg", "--batch", "--batch-gpu", "--gpus", "--workers", "--seed"],
    "What is kept and measured": [
        *("--outdir", "--tick", "--snap", "--metrics", "--keep-snapshots", "--posthoc-ema", "--wandb", "--track"),
    ],
    "Regularisation and augmentation": ["--gamma", "--aug", "--p", "--target", "--augpipe", "--freezed"],
    "Styleformer's networks": [
        *("--g_dict", "--num_layers", "--depth", "--minimum_head", "--linformer", "--start-resolution"),
    ],
    "Speed and precision": ["--device", "--precision", "--fp32", "--nhwc", "--compile", "--nobench", "--allow-tf32"],
}


@click.command(
    cls=Command,
    goes_on=True,
    groups=GROUPS,
    epilog=f"Presets: {', '.join(PRESETS)}",
    context_settings={"max_content_width": 120},
)
@click.option("--outdir", type=PATH, default="training-runs", show_default=True, help="Where run folders are made")
@click.option(
    "--cfg",
    "preset",
    type=PresetName(list(PRESETS)),
    metavar="PRESET",
    help="e.g. demo, cifar, ffhq256, or one of an --import file; listed at the end  [default: auto]",
)
@click.option("--config", type=PATH, help="A new run with the options of an old one: its training_options.json")
@click.option("--gpus", type=click.IntRange(min=1), help="Processes  [default: one per GPU, or 1 on a CPU]")
@devices.device_option
@config_options
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Any config field, e.g. G.w_dim=256")
@click.option("--import", "plugins", type=PATH, multiple=True, help="Python file that registers networks or metrics")
@click.option("--new", "is_new", is_flag=True, help="Start afresh even if the same command left an unfinished run")
@click.option("-n", "--dry-run", is_flag=True, help="Print the whole config and the network sizes, then stop")
def main(
    outdir: str,
    preset: str | None,
    config: str | None,
    gpus: int | None,
    settings: tuple[str, ...],
    plugins: tuple[str, ...],
    is_new: bool,
    dry_run: bool,
    **values: Any,
) -> None:
    """Train a generator on a data set made by dataset_tool.py.

    The same command again continues an unfinished run; --new starts another.

    \b
    python train.py --cfg=demo
    python train.py --outdir=runs --data=cifar10.zip --cfg=cifar --g_dict=256,64,16 --num_layers=1,2,2 --depth=32
    python train.py --resume=training-runs/00003-cifar10-cifar-batch32
    """
    for file in plugins:
        import_file(file)
    if config is not None and preset is not None:
        raise UserError(f"--config={config} says everything that --cfg={preset} would; leave one of them out")
    folder = run_to_continue(values, preset, is_new, outdir)
    if config is not None and folder is not None:
        raise UserError(f"--resume={folder} continues that run with its own settings; leave --config out")
    count = distributed.process_count(gpus)
    dataset: ImageDataset | None
    if folder is not None:
        cfg, dataset = resolve_run(folder, count, values, settings)
    elif config is not None:
        cfg, dataset = resolve_options(config, count, values, settings)
    else:
        cfg, dataset = resolve(preset or "auto", count, values, settings, needs_data=not dry_run)
    sizes = check_config(cfg)
    if dry_run:
        print_config(cfg, *sizes)
        return
    assert dataset is not None
    settle_metrics(cfg, is_asked_for=values["metrics"] is not None)
    if distributed.is_first_process():
        print_overview(cfg, dataset, *sizes)
        say_what_has_no_effect(cfg)
    launch(cfg, Place(outdir, run_description(dataset.name, cfg), folder, is_new), plugins, dataset)


def run_to_continue(values: dict[str, Any], preset: str | None, is_new: bool, outdir: str) -> str | None:
    """The run folder of --resume, taken out of the options; None if --resume means a network or isn't there."""
    source = values["resume"]
    if source is None:
        return None
    if source == "latest":
        source = newest_run(outdir)
    if not os.path.isdir(source):
        check_source(source)
        return None
    if is_new or preset is not None:
        other = "--new" if is_new else f"--cfg={preset}"
        raise UserError(f"--resume={source} continues that run with its own settings; leave {other} out")
    values["resume"] = None
    return source


def settle_metrics(cfg: TrainingConfig, is_asked_for: bool) -> None:
    """Metrics that were asked for must be measurable; the preset's own are left out if their detector is not here."""
    if is_asked_for:
        require_detectors(cfg.metrics)
        if cfg.metrics:
            build_space(cfg.G.space).check()
    for line in (drop_pictures(cfg), None if is_asked_for else drop_missing_metrics(cfg)):
        if line and distributed.is_first_process():
            click.echo(line)


def print_config(cfg: TrainingConfig, g_size: int, d_size: int) -> None:
    """The whole resolved config and the networks' exact sizes."""
    click.echo(json.dumps(to_dict(cfg), indent=2))
    click.echo(f"G: {cfg.G.kind}, {g_size:,} parameters")
    click.echo(f"D: {cfg.D.kind}, {d_size:,} parameters")


def print_overview(cfg: TrainingConfig, dataset: ImageDataset, g_size: int, d_size: int) -> None:
    """What matters of a run at a glance; the run folder's training_options.json has all of it."""
    channels, height, width = dataset.image_shape
    labels = f"labels of length {dataset.label_dim}" if dataset.label_dim else "without labels"
    kind = devices.kind()
    gpu = torch.cuda.get_device_name() if kind == "cuda" else kind if kind != "cpu" else None
    lines = {
        "preset": cfg.preset,
        "data": f"{len(dataset):,} images of {width}x{height}, {channels} channels, {labels}: {dataset.path}",
        "G": f"{cfg.G.kind}, {g_size:,} parameters",
        "D": f"{cfg.D.kind}, {d_size:,} parameters",
        "objective": f"{cfg.loss.kind}, augmentation {cfg.ada.mode}",
        "length": f"{cfg.total_kimg:,g} kimg in batches of {cfg.batch}",
        "computes": ("" if cfg.precision == "auto" else f"in {cfg.precision} ")
        + f"on {gpu or f'the CPU, {torch.get_num_threads()} threads'}"
        + (f", {cfg.gpus} processes" if cfg.gpus > 1 else ""),
        "metrics": ", ".join(cfg.metrics) or "none",
    }
    for name, value in lines.items():
        say(f"{name:10} {value}")


def say_what_has_no_effect(cfg: TrainingConfig) -> None:
    """The known options that only a GPU heeds."""
    if devices.kind() == "cuda":
        return
    for name, value in (("--nobench", cfg.nobench), ("--allow-tf32", cfg.allow_tf32)):
        if value:
            click.echo(f"{name} has no effect on a CPU")


if __name__ == "__main__":
    main()
