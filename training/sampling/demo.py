"""What `make demo` shows of a finished run: how the pictures grew, what they lie next to, and the figures.

`python -m training.sampling.demo --run=training-runs/00000-...` works on any run.
"""

import json
from pathlib import Path

import click
import torch
from PIL import Image

from dnnlib.cli import PATH, Command
from dnnlib.config import from_dict
from dnnlib.errors import UserError
from metrics import compute_metrics
from metrics.baselines import BASELINES, PCAGaussian
from training.config import DataConfig
from training.dataset import ImageDataset, open_dataset
from training.networks.shared.generator import Generator
from training.run.report.page import spread, write_report
from training.sampling.commands.options import LabelOptions, load_generator
from training.sampling.pictures import enlarged, labelled_sheet, to_pil, write_picture
from training.sampling.seeds import class_label, image_of_seed

DETECTORS = ("lite0", "mobilenetv2")  # both come with the set-up
BASELINE = "pca64"
SCALE = 3  # small pictures are enlarged for the eye
COLUMNS = 16
GRIDS = 8  # of the run's picture grids, in the timeline


@click.command(cls=Command)
@click.option("--run", "run_dir", type=PATH, required=True, help="A finished run's folder")
@click.option("--images", type=click.IntRange(min=1), default=2, show_default=True, help="Thousands to measure with")
def main(run_dir: str, images: int) -> None:
    """Draw and measure what a run has come to."""
    run = Path(run_dir)
    snapshots = sorted(run.glob("network-snapshot-*.pkl"))
    if not snapshots:
        raise UserError(f"{run_dir} holds no network-snapshot-*.pkl; give --run the folder of a finished run")
    G = load_generator(str(snapshots[-1]), ())
    dataset = _data_of(run)
    if dataset.thumbnails([0]) is not None:
        raise UserError(f"{run_dir} was trained on latents: this page compares pixels; see its report.html instead")
    write_picture(timeline(run, dataset.image_shape), run / "timeline.png")
    write_picture(neighbours(G, dataset), run / "neighbours.png")
    click.echo(verdict(run, snapshots[-1].name, G, dataset, images))
    warning = write_report(run)
    if warning:
        click.echo(warning)
    for name, what in (
        ("samples.png", "samples of the finished network"),
        ("timeline.png", "real pictures, then the same latents while training went on"),
        ("neighbours.png", "samples, each above the training picture that is nearest to it"),
        ("report.html", "curves, settings, pictures of the run"),
    ):
        if (run / name).exists():
            click.echo(f"{run / name}: {what}")


def _data_of(run: Path) -> ImageDataset:
    data = from_dict(DataConfig, json.loads((run / "training_options.json").read_text())["data"])
    return open_dataset(data.path, data.use_labels, data.max_size)


def timeline(run: Path, shape: tuple[int, int, int]) -> Image.Image:
    """Real pictures, and one row per picture grid of the run: its first images, labelled with the thousands of images
    seen."""
    _, height, width = shape
    grids = sorted(run.glob("fakes*.png"), key=lambda p: (p.stem != "fakes_init", p.stem))
    grids = [run / "reals.png", *spread(grids, GRIDS)]
    known = {"reals": "real", "fakes_init": "start"}
    rows, labels = [], []
    for path in grids:
        sheet = Image.open(path)
        count = min(sheet.width // width, COLUMNS)
        cells = [sheet.crop((i * width, 0, (i + 1) * width, height)) for i in range(count)]
        rows.append([enlarged(cell, SCALE) for cell in cells])
        labels.append(known.get(path.stem) or f"{int(path.stem[5:])} kimg")
    return labelled_sheet(rows, row_labels=labels)


def neighbours(G: Generator, dataset: ImageDataset, rows: int = 3) -> Image.Image:
    """Samples of seeds 0, 1, ..., and under each the training picture at the smallest distance in pixels."""
    reals, _ = dataset.load(range(len(dataset)))
    flat = reals.flatten(1).float()
    cells: list[list[Image.Image]] = []
    for row in range(rows):
        seeds = range(row * COLUMNS, (row + 1) * COLUMNS)
        rows_of_c = _labels(G, seeds).split(1)
        samples = torch.stack([image_of_seed(G, seed, c) for seed, c in zip(seeds, rows_of_c)])
        nearest = torch.cdist(samples.flatten(1).float(), flat).argmin(1)
        for images in (samples, reals[nearest]):
            cells.append([enlarged(to_pil(image), SCALE) for image in images])
    return labelled_sheet(cells, row_labels=["sample", "nearest"] * rows)


def _labels(G: Generator, seeds: range) -> torch.Tensor:
    """Labels [N, c_dim]: all classes in turn, or what the network was trained on."""
    if G.c_dim and G.label_vectors is None:
        return torch.cat([class_label(G, seed % G.c_dim) for seed in seeds])
    return LabelOptions().of_seeds(G, seeds)


def verdict(run: Path, snapshot: str, G: Generator, dataset: ImageDataset, thousands: int) -> str:
    """KID and coverage of the network and of a Gaussian fitted to the pixels, by two detectors, as a table; the results
    are added to the run's metric files."""
    names = [f"{metric}{thousands}k_{detector}" for detector in DETECTORS for metric in ("kid", "cov")]
    columns: dict[str, dict[str, float]] = {}
    baseline = PCAGaussian(dataset, BASELINES[BASELINE])
    for title, generator, file in (("this network", G, snapshot), ("PCA-Gaussian", baseline, None)):
        results = compute_metrics(names, generator, dataset)
        for result in results:
            result.append_to(run, file)
        columns[title] = {name: value for result in results for name, value in result.results.items()}
    lines = [f"{'':34s}" + "".join(f"{title:>16s}" for title in columns)]
    for key in columns["this network"]:
        lines.append(f"{key:34s}" + "".join(f"{values[key]:16.4f}" for values in columns.values()))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
