"""`generate.py directions`: along which directions in w pictures change."""

import click
import torch

from dnnlib.cli import PATH, SEED, Command
from dnnlib.errors import UserError
from training.networks.shared.generator import NoiseMode
from training.sampling import sheets
from training.sampling.commands.options import (
    CLASS,
    GUIDANCE,
    NETWORK,
    NOISE,
    PLUGINS,
    POSITIVE,
    TRUNC,
    WIDE,
    LabelOptions,
    load_generator,
    options,
    out_option,
    parse_numbers,
    save,
    scale_option,
)
from training.sampling.directions.factorisation import METHODS, Method, direction_sheet, find_directions
from training.sampling.seeds import styles_of_seeds


@click.command(cls=Command, context_settings=WIDE)
@options(NETWORK, out_option("directions.png", "Sheet to write: a row per direction, a column per amount"))
@click.option("--file", type=PATH, help="Also write the directions, as .npz, e.g. for explore --directions")
@click.option("--method", type=click.Choice(METHODS), default="sefa", show_default=True,
              help="Of the weights of the style layers (SeFa), or of w itself (GANSpace)")  # fmt: skip
@click.option("--count", type=POSITIVE, default=8, show_default=True, help="How many, the most important ones first")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Picture that is moved")
@click.option("--amounts", default="-3,-2,-1,0,1,2,3", show_default=True, help="In standard deviations of w")
@click.option("--styles", help="Which styles move, e.g. 0-2  [default: all]")
@options(TRUNC, GUIDANCE, CLASS, NOISE, scale_option(96), PLUGINS)
def directions(
    network: str,
    out: str,
    file: str | None,
    method: Method,
    count: int,
    seed: int,
    amounts: str,
    styles: str | None,
    psi: float,
    guidance: float | None,
    labels: LabelOptions,
    noise_mode: NoiseMode,
    scale: int | None,
    plugins: tuple[str, ...],
) -> None:
    """Find directions in w along which pictures change, and draw a picture moved along each."""
    steps = parse_numbers(amounts, "--amounts")
    if file is not None and not file.endswith(".npz"):
        raise UserError(f"--file={file}: directions are written as .npz")
    G = load_generator(network, plugins, guidance)
    moving = None if styles is None else sheets.parse_styles(styles, G.num_ws)
    c = labels.one(G)
    with torch.no_grad():
        found = find_directions(G, method, count, c, moving)
        ws = styles_of_seeds(G, [seed], c, psi)
        sheet = direction_sheet(G, found, ws, steps, moving, noise_mode, scale or sheets.sheet_scale(G.picture_size))
    if file is not None:
        found.save(file)
        click.echo(f"{file}: {count} directions")
    save(sheet, out)
