"""What the commands of generate.py share: their options, loading the generator, and where results go."""

from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path

import click
import torch
from PIL import Image

from dnnlib.cli import PATH
from dnnlib.errors import UserError
from dnnlib.plugins import import_file
from training import networks
from training.networks.shared.generator import NOISE_MODES, Generator
from training.sampling.pictures import write_picture

POSITIVE = click.IntRange(min=1)
WIDE = {"max_content_width": 120}

NETWORK_HELP = "Network file (.pkl, .safetensors, official files) or URL"
NETWORK = click.option("--network", type=PATH, required=True, help=NETWORK_HELP)
PLUGINS = click.option("--import", "plugins", type=PATH, multiple=True, help="Python file that registers networks")
TRUNC = click.option("--trunc", "psi", type=float, default=1.0, show_default=True, help="Truncation psi")
CLASS = click.option("--class", "class_index", type=int, help="Class of a conditional network")
NOISE = click.option("--noise-mode", type=click.Choice(NOISE_MODES), default="const", show_default=True)


def options(*decorators: Callable) -> Callable[[Callable], Callable]:
    """Several click options as one decorator, listed in this order by --help."""
    return lambda function: reduce(lambda f, decorate: decorate(f), reversed(decorators), function)


def out_option(default: str, text: str) -> Callable:
    """`--out`: the one file that a command writes."""
    return click.option("--out", type=PATH, default=default, show_default=True, help=text)


def scale_option(about: int) -> Callable:
    """`--scale`; without it small images are enlarged to about so many pixels."""
    text = f"Enlarge every pixel so much  [default: small images to about {about}]"
    return click.option("--scale", type=POSITIVE, help=text)


def load_generator(file: str, plugins: Sequence[str]) -> Generator:
    """G_ema of a network file, on the GPU if there is one."""
    for plugin in plugins:
        import_file(plugin)
    G = networks.load(file, names=["G_ema"])["G_ema"]
    if G is None:
        raise UserError(f"{file} holds no generator (G_ema)")
    return G.to("cuda" if torch.cuda.is_available() else "cpu")


def make_folder(outdir: str) -> Path:
    """The output folder; UserError if it can't be made."""
    folder = Path(outdir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"--outdir: cannot make {outdir}: {e.strerror}") from e
    return folder


def save(picture: Image.Image, out: str) -> None:
    """Writes a picture and says where."""
    write_picture(picture, out)
    click.echo(f"{out}: {picture.width} x {picture.height} pixels")


def parse_numbers(text: str, option: str = "--trunc") -> list[float]:
    """`0,0.5,1` -> numbers; UserError for anything else."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option}: {text!r} is neither a number nor a list such as 0,0.5,1") from None
