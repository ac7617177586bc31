"""`generate.py project`: the style whose picture comes closest to a given one."""

import io
import math
from pathlib import Path

import click
import numpy as np
import torch

from dnnlib.cli import PATH, SEED, Command
from dnnlib.errors import UserError
from dnnlib.files import write_file
from dnnlib.progress import tqdm
from metrics.detectors import load_detector
from training.networks.shared.generator import Generator
from training.sampling import sheets
from training.sampling.commands.options import (
    CLASS,
    NETWORK,
    PLUGINS,
    POSITIVE,
    WIDE,
    LabelOptions,
    load_generator,
    make_folder,
    options,
)
from training.sampling.pictures import labelled_sheet, to_pil, write_picture
from training.sampling.projection.perceptual import PerceptualDistance
from training.sampling.projection.search import Projection, ProjectionConfig, Space, load_target
from training.sampling.projection.search import project as search
from training.sampling.seeds import images_of_styles


@click.command(cls=Command, context_settings=WIDE)
@options(NETWORK, click.option("--target", type=PATH, required=True, help="The picture to find a style for"))
@click.option("--outdir", type=PATH, required=True, help="Where projected_w.npz and the pictures go")
@click.option("--steps", type=POSITIVE, default=ProjectionConfig.steps, show_default=True)
@click.option(
    "--space",
    type=click.Choice(["w+", "w"]),
    default=ProjectionConfig.space,
    show_default=True,
    help="A style for every layer (closer), or one for all (stays among the generator's pictures)",
)
@click.option("--detector", default="lite0", show_default=True, help="Network whose features are compared")
@click.option("--detector-file", type=PATH, help="Its weights, where they are no package")
@click.option("--seed", type=SEED, default=ProjectionConfig.seed, show_default=True)
@options(CLASS, PLUGINS)
def project(
    network: str,
    target: str,
    outdir: str,
    steps: int,
    space: Space,
    detector: str,
    detector_file: str | None,
    seed: int,
    labels: LabelOptions,
    plugins: tuple[str, ...],
) -> None:
    """Find the style whose picture comes closest to a given picture."""
    G = load_generator(network, plugins)
    if not G.space.takes_pictures:
        raise UserError("project works on pixels, and this network makes latents: there is no projection for it")
    c = labels.one(G)
    device = next(G.parameters()).device
    image = load_target(target, G)
    distance = PerceptualDistance(load_detector(detector, device, file=detector_file), image.to(device))
    folder = make_folder(outdir)
    with tqdm(total=steps, unit="step", disable=None, leave=False) as bar:

        def progress(best: float) -> None:
            bar.set_postfix_str(f"distance {best:.4f}", refresh=False)
            bar.update()

        found = search(G, distance, ProjectionConfig(steps=steps, space=space, seed=seed), c, progress)
    save_projection(G, found, image, folder)
    click.echo(f"{distance_text(found)}; {folder}/projected_w.npz, comparison.png")


def distance_text(found: Projection) -> str:
    """The distance that was reached, beside that of the average style."""
    ratio = found.average_distance / found.distance if found.distance else math.inf
    less = f", {ratio:.1f} times less than" if math.isfinite(ratio) and found.distance < found.average_distance else ";"
    return f"distance {found.distance:.4f}{less} the average style's {found.average_distance:.4f}"


def save_projection(G: Generator, found: Projection, target: torch.Tensor, folder: Path) -> None:
    """projected_w.npz, target.png, projected.png, and comparison.png of average, target and result."""
    buffer = io.BytesIO()
    np.savez(buffer, w=found.ws.numpy())
    write_file(folder / "projected_w.npz", buffer.getvalue())
    images = images_of_styles(G, torch.cat([found.average_ws, found.ws]))
    shown = [images[0], G.space.to_pixels(target)[0], images[1]]
    write_picture(to_pil(shown[1]), folder / "target.png")
    write_picture(to_pil(shown[2]), folder / "projected.png")
    cells = sheets.pictures(torch.stack(shown), sheets.sheet_scale(G.img_size, 192))
    comparison = labelled_sheet([cells], column_labels=["average", "target", "projected"])
    write_picture(comparison, folder / "comparison.png")
