"""`generate.py mix`: the style mixing matrix."""

import click

from dnnlib.cli import Command
from training.networks.shared.generator import NoiseMode
from training.sampling import sheets
from training.sampling.commands.options import (
    CLASS,
    GUIDANCE,
    NETWORK,
    NOISE,
    PLUGINS,
    TRUNC,
    WIDE,
    LabelOptions,
    load_generator,
    options,
    out_option,
    save,
    scale_option,
)
from training.sampling.seeds import parse_seeds


@click.command(cls=Command, context_settings=WIDE)
@options(NETWORK, out_option("mix.png", "Picture to write"))
@click.option("--rows", default="0-3", show_default=True, help="Seeds that give the picture")
@click.option("--cols", default="4-9", show_default=True, help="Seeds that some styles are taken from")
@click.option("--styles", help="Which styles, e.g. 0-2  [default: the first half, the coarse ones]")
@options(TRUNC, GUIDANCE, CLASS, NOISE, scale_option(96), PLUGINS)
def mix(
    network: str,
    out: str,
    rows: str,
    cols: str,
    styles: str | None,
    psi: float,
    guidance: float | None,
    labels: LabelOptions,
    noise_mode: NoiseMode,
    scale: int | None,
    plugins: tuple[str, ...],
) -> None:
    """The style mixing matrix: each row's picture with some styles taken from each column's."""
    row_seeds, column_seeds = parse_seeds(rows, "--rows"), parse_seeds(cols, "--cols")
    G = load_generator(network, plugins, guidance)
    chosen = sheets.parse_styles(styles or f"0-{(G.num_ws - 1) // 2}", G.num_ws)
    scale = scale or sheets.sheet_scale(G.picture_size)
    c = labels.one(G)
    save(sheets.mixing_sheet(G, row_seeds, column_seeds, chosen, c, psi, noise_mode, scale), out)
