"""Generates pictures with a trained network, and looks at what it has learned."""

import dnnlib.startup  # noqa: F401  (first, because the other imports take seconds)

# isort: split
from pathlib import Path

import click
import torch

from dnnlib.cli import NETWORK_FILE, PATH, Group, counted
from dnnlib.errors import UserError
from dnnlib.progress import tqdm
from training.networks.shared.generator import Generator, NoiseMode
from training.sampling.commands import COMMANDS
from training.sampling.commands.options import (
    CLASS,
    GUIDANCE,
    NETWORK_HELP,
    NOISE,
    PLUGINS,
    TRUNC,
    WIDE,
    LabelOptions,
    load_generator,
    make_folder,
    options,
)
from training.sampling.pictures import to_pil, write_picture
from training.sampling.seeds import image_of_seed, images_of_styles, load_projected_w, parse_seeds


@click.group(cls=Group, invoke_without_command=True, context_settings=WIDE)
@options(
    click.option("--network", type=NETWORK_FILE, help=NETWORK_HELP),
    click.option("--outdir", type=PATH, help="Where the pictures go"),
    click.option("--seeds", help="Seeds, e.g. 0,5,100-105"),
    TRUNC,
    GUIDANCE,
    CLASS,
    NOISE,
    click.option("--projected-w", type=PATH, help=".npz with styles w, instead of --seeds"),
    PLUGINS,
)
@click.pass_context
def main(
    ctx: click.Context,
    network: str | None,
    outdir: str | None,
    seeds: str | None,
    psi: float,
    guidance: float | None,
    labels: LabelOptions,
    noise_mode: NoiseMode,
    projected_w: str | None,
    plugins: tuple[str, ...],
) -> None:
    """Generate pictures, one file per seed; or one of the commands below (each has its own --help).

    \b
    python generate.py --outdir=out --seeds=100-105 --network=training-runs/00000-.../network-snapshot-000100.pkl
    python generate.py --outdir=out --seeds=0-35 --trunc=0.7 --class=3 --network=FILE
    python generate.py --outdir=out --projected-w=out/projected_w.npz --network=FILE
    """
    if ctx.invoked_subcommand is not None:
        _refuse_options_before(ctx, ctx.invoked_subcommand)
        return
    if network is None or outdir is None:
        missing = "--network=FILE" if network is None else "--outdir=FOLDER"
        raise UserError(f"missing option {missing} (or a command; see python generate.py --help)")
    if (seeds is None) == (projected_w is None):
        raise UserError("say what to generate: either --seeds=0-9 or --projected-w=FILE.npz")
    wanted = parse_seeds(seeds) if seeds is not None else []
    G = load_generator(network, plugins, guidance)
    if projected_w is not None:
        save_projected(G, load_projected_w(G, projected_w), noise_mode, make_folder(outdir))
        return
    rows = labels.one(G).expand(len(wanted), -1) if labels.file is None else labels.of_seeds(G, wanted)
    folder = make_folder(outdir)
    for seed, c in zip(tqdm(wanted, unit="img", disable=None, leave=False), rows.split(1)):
        write_picture(to_pil(image_of_seed(G, seed, c, psi, noise_mode)), folder / f"seed{seed:04d}.png")
    click.echo(f"{counted(len(wanted), 'picture')} in {folder}")


def _refuse_options_before(ctx: click.Context, command: str) -> None:
    """Options of the plain form would be ignored before a command: that is a mistake."""
    default = click.core.ParameterSource.DEFAULT
    given = [p.opts[0] for p in ctx.command.params if p.name and ctx.get_parameter_source(p.name) != default]
    if given:
        raise UserError(f"{given[0]} stands before the command: write generate.py {command} {given[0]}=...")


def save_projected(G: Generator, ws: torch.Tensor, noise_mode: NoiseMode, folder: Path) -> None:
    """Writes proj00.png, ... of styles ws [N, num_ws or more, w_dim]."""
    for i, w in enumerate(ws):
        write_picture(to_pil(images_of_styles(G, w[None], noise_mode, [i])[0]), folder / f"proj{i:02d}.png")
    click.echo(f"{counted(len(ws), 'picture')} in {folder}")


for command in COMMANDS:
    main.add_command(command)

if __name__ == "__main__":
    main()
