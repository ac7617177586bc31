"""What the commands of generate.py share: their options, loading the generator, and where results go."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import click
import torch
from PIL import Image

from dnnlib.cli import NETWORK_FILE, NUMBER, PATH
from dnnlib.errors import UserError
from dnnlib.plugins import import_file
from torch_utils.devices import device_option, own_device
from training import networks
from training.networks.shared.generator import NOISE_MODES, Generator
from training.sampling.labels import (
    drawn_labels,
    parse_vector,
    read_vectors,
    vector_labels,
    vectors_trained_on,
)
from training.sampling.pictures import write_picture
from training.sampling.seeds import class_label

POSITIVE = click.IntRange(min=1)
WIDE = {"max_content_width": 120}

NETWORK_HELP = "Network file (.pkl, .safetensors, official files) or URL; a run folder means its newest snapshot"
PLUGINS = click.option("--import", "plugins", type=PATH, multiple=True, help="Python file that registers networks")
TRUNC = click.option("--trunc", "psi", type=NUMBER, default=1.0, show_default=True, help="Truncation psi")
GUIDANCE = click.option(
    "--guidance", type=NUMBER, help="GAT: move styles away from the mean of all classes, e.g. 1.5  [default: 1, not]"
)
NOISE = click.option("--noise-mode", type=click.Choice(NOISE_MODES), default="const", show_default=True)


@dataclass(frozen=True)
class LabelOptions:
    """What --class, --label and --label-file say."""

    class_index: int | None = None
    vector: str | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        given = [self.class_index, self.vector, self.file]
        if given.count(None) < 2:
            raise UserError("give one of --class, --label and --label-file")

    @property
    def is_given(self) -> bool:
        """Whether the command line says which labels to take."""
        return self != LabelOptions()

    def vectors(self, G: Generator) -> torch.Tensor | None:
        """The labels [N, c_dim] of --label or --label-file."""
        if self.vector is not None:
            return vector_labels(G, [parse_vector(self.vector, "--label")], "--label")
        return None if self.file is None else vector_labels(G, read_vectors(self.file), "--label-file")

    def one(self, G: Generator) -> torch.Tensor:
        """The label [1, c_dim] for a command that takes a single one. UserError where it doesn't fit the network."""
        found = self.vectors(G)
        if found is not None and len(found) > 1:
            raise UserError(f"--label-file: this command takes one label, {self.file} holds {len(found)}")
        return class_label(G, self.class_index) if found is None else found

    def of_seeds(self, G: Generator, seeds: Sequence[int]) -> torch.Tensor:
        """A label [N, c_dim] per seed: the given one, those of the file in turn, or, of a network whose labels are
        vectors, drawn ones."""
        found = self.vectors(G)
        if found is not None:
            return found[[i % len(found) for i in range(len(seeds))]]
        if G.label_vectors is not None and not self.is_given:
            return drawn_labels(G, seeds)
        return class_label(G, self.class_index).expand(len(seeds), -1)


def label_options(function: Callable) -> Callable:
    """--class, --label and --label-file, which the function gets as `labels`."""

    @functools.wraps(function)
    def with_labels(*args: Any, class_index: int | None, label: str | None, label_file: str | None, **rest: Any) -> Any:
        return function(*args, labels=LabelOptions(class_index, label, label_file), **rest)

    for option in (
        click.option("--label-file", type=PATH, help="File of such labels, one a line, or a JSON list of lists"),
        click.option("--label", help="Label of a network trained on vectors, e.g. 0.1,0.3"),
        click.option("--class", "class_index", type=int, help="Class of a conditional network"),
    ):
        with_labels = option(with_labels)
    return with_labels


def options(*decorators: Callable) -> Callable[[Callable], Callable]:
    """Several click options as one decorator, listed in this order by --help."""
    return lambda function: reduce(lambda f, decorate: decorate(f), reversed(decorators), function)


CLASS = label_options
NETWORK = options(click.option("--network", type=NETWORK_FILE, required=True, help=NETWORK_HELP), device_option)


def out_option(default: str, text: str) -> Callable:
    """`--out`: the one file that a command writes."""
    return click.option("--out", type=PATH, default=default, show_default=True, help=text)


def scale_option(about: int) -> Callable:
    """`--scale`; without it small images are enlarged to about so many pixels."""
    text = f"Enlarge every pixel so much  [default: small images to about {about}]"
    return click.option("--scale", type=POSITIVE, help=text)


def load_generator(file: str, plugins: Sequence[str], guidance: float | None = None) -> Generator:
    """G_ema of a network file, on the device of this command. Its mapping gives styles of this guidance; UserError
    where it has none."""
    for plugin in plugins:
        import_file(plugin)
    loaded = networks.load(file, names=["G_ema"])
    G = loaded["G_ema"]
    if G is None:
        raise UserError(f"{file} holds no generator (G_ema)")
    if G.c_dim:
        G.label_vectors = vectors_trained_on(loaded)
    if guidance is not None:
        set_guidance(G, guidance)
    return G.to(own_device())


def set_guidance(G: Generator, guidance: float) -> None:
    """Lets all styles move away from the mean over the classes. UserError for networks without guidance."""
    if G.mapping.guidance is None:
        what = "a network without classes" if G.cfg.kind == "gat" else f"the generator {G.cfg.kind}"
        raise UserError(f"--guidance: {what} has no guidance; leave it out")
    G.mapping.guidance = guidance


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
    """`0,0.5,1` -> finite numbers; UserError for anything else."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option}: {text!r} is neither a number nor a list such as 0,0.5,1") from None
    if not all(map(math.isfinite, numbers)):
        raise UserError(f"{option}: {text!r} is not finite")
    return numbers
