"""`generate.py grid`: one sheet of seeds, truncations or classes."""

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
    POSITIVE,
    WIDE,
    LabelOptions,
    load_generator,
    options,
    out_option,
    parse_numbers,
    save,
    scale_option,
)
from training.sampling.seeds import parse_seeds


@click.command(cls=Command, context_settings=WIDE)
@options(
    NETWORK, out_option("grid.png", "Picture to write"), click.option("--seeds", default="0-31", show_default=True)
)
@click.option("--columns", type=POSITIVE, default=8, show_default=True, help="Pictures in a row")
@click.option("--trunc", "psis", default="1", show_default=True, help="Truncation psi; several make a sweep: 0,0.5,1")
@options(GUIDANCE, CLASS, NOISE, scale_option(96), PLUGINS)
def grid(
    network: str,
    out: str,
    seeds: str,
    columns: int,
    psis: str,
    guidance: float | None,
    labels: LabelOptions,
    noise_mode: NoiseMode,
    scale: int | None,
    plugins: tuple[str, ...],
) -> None:
    """One sheet of many seeds; of several truncations; or, of a conditional network without --class, of all classes.
    Where labels are vectors, every seed has one of those that the network was trained on.

    \b
    python generate.py grid --network=FILE --seeds=0-31
    python generate.py grid --network=FILE --seeds=0-7 --trunc=0,0.3,0.7,1
    """
    wanted, sweep = parse_seeds(seeds), parse_numbers(psis)
    G = load_generator(network, plugins, guidance)
    scale = scale or sheets.sheet_scale(G.picture_size)
    if len(sweep) > 1:
        sheet = sheets.truncation_sheet(G, wanted, labels.of_seeds(G, wanted), sweep, noise_mode, scale)
    elif G.c_dim and G.label_vectors is None and not labels.is_given:
        sheet = sheets.class_sheet(G, wanted, sweep[0], noise_mode, scale)
    else:
        sheet = sheets.seed_sheet(G, wanted, labels.of_seeds(G, wanted), sweep[0], noise_mode, columns, scale)
    save(sheet, out)
