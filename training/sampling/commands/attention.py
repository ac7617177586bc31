"""`generate.py attention`: what the attention layers look at."""

import click

from dnnlib.cli import SEED, Command
from dnnlib.errors import UserError
from training.sampling import sheets
from training.sampling.attention.maps import attention_maps
from training.sampling.attention.picture import attention_sheet, choose_layers
from training.sampling.commands.options import (
    CLASS,
    GUIDANCE,
    NETWORK,
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
from training.sampling.seeds import styles_of_seeds


@click.command(cls=Command, context_settings=WIDE)
@options(NETWORK, out_option("attention.png", "Picture to write"))
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--at", help="The query: x,y from 0,0 (top left) to 1,1  [default: the mean over all queries]")
@click.option("--layers", default="", help="Layers (32x32.0) or sizes (32x32), comma-separated  [default: all]")
@options(TRUNC, GUIDANCE, CLASS, scale_option(128), PLUGINS)
def attention(
    network: str,
    out: str,
    seed: int,
    at: str | None,
    layers: str,
    psi: float,
    guidance: float | None,
    labels: LabelOptions,
    scale: int | None,
    plugins: tuple[str, ...],
) -> None:
    """What the attention layers look at, per layer and head, laid over the image.

    \b
    python generate.py attention --network=FILE --seed=3 --at=0.5,0.3
    python generate.py attention --network=FILE --seed=3 --layers=16x16
    """
    query = None if at is None else parse_point(at)
    G = load_generator(network, plugins, guidance)
    image, maps = attention_maps(G, styles_of_seeds(G, [seed], labels.one(G), psi), query)
    chosen = choose_layers(maps, [name for name in layers.split(",") if name])
    factor = scale or sheets.sheet_scale(G.picture_size, 128)
    save(attention_sheet(G.space.to_pixels(image)[0].cpu(), chosen, query, factor), out)


def parse_point(text: str) -> tuple[float, float]:
    """`x,y` -> (y, x); UserError unless both lie in [0, 1]."""
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--at wants x,y such as 0.5,0.3, got {text!r}") from None
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise UserError(f"--at={text}: both numbers lie between 0 and 1, from the top left corner")
    return y, x
