"""Times of the metrics: the Fréchet formula against scipy's sqrtm, and a whole FID against feeding the detector alone.

    python benchmarks/metrics.py [--images=5000] [--dims=2048] [--threads=2]

The detector is the Inception network with random weights: its speed doesn't depend on them.
"""

import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import scipy.linalg
import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support import peers  # noqa: E402

from metrics import compute_metrics  # noqa: E402
from metrics.baselines import PCAGaussian  # noqa: E402
from metrics.detectors import load_detector  # noqa: E402
from metrics.formulas.frechet import frechet_distance, moments_of  # noqa: E402
from metrics.formulas.kernel import kernel_distance  # noqa: E402
from metrics.formulas.neighbours import density_coverage  # noqa: E402
from metrics.sources import DatasetSource, GeneratorSource  # noqa: E402
from training.dataset import open_dataset  # noqa: E402

BATCH = 64


def timed(function, *args):
    """(seconds, result)"""
    start = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - start, result


def benchmark_formula(dims):
    """FID formula: ours, and sqrtm of the product as it is usually written."""
    rng = np.random.RandomState(0)
    mix = torch.from_numpy(rng.randn(dims, dims) / dims**0.5)
    a, b = (moments_of(torch.from_numpy(rng.randn(4 * dims, dims)) @ mix * scale) for scale in (1.0, 1.1))
    ours, value = timed(frechet_distance, a, b)
    theirs, root = timed(scipy.linalg.sqrtm, (a.cov @ b.cov).numpy())
    expected = float((a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace()) - 2 * np.trace(root).real
    click.echo(
        f"Fréchet formula, {dims} dimensions: {ours:.2f} s, with scipy sqrtm {theirs:.2f} s: {theirs / ours:.1f}x"
    )
    click.echo(f"  results {value:.10g} and {expected:.10g}")


def benchmark_pass(images, weights, name):
    """A whole FID (generator, resizing, detector, moments, formula) against the bare detector on ready tensors."""
    dataset = open_dataset(ROOT / "datasets/noto-emoji-32.zip")
    G = PCAGaussian(dataset, 64)
    files = {name: str(weights)} if weights else {}
    detector = load_detector(name, file=weights)
    reals = min(len(dataset), images)
    source, real = GeneratorSource(G, dataset), DatasetSource(dataset, np.arange(reals))
    batches = [source.images(i, min(i + BATCH, images)) for i in range(0, images, BATCH)]
    batches += [real.images(i, min(i + BATCH, reals)) for i in range(0, reals, BATCH)]

    def feed():
        with torch.no_grad():
            for batch in batches:
                detector(batch, ["features"])

    def whole():
        metric = f"fid{images // 1000}k_full_{name}"
        compute_metrics([metric], G, dataset, batch=BATCH, cache=False, detector_files=files)

    feed_alone, _ = timed(feed)
    everything, _ = timed(whole)
    count = images + reals
    click.echo(
        f"{name}, {images:,} generated + {reals:,} real images: whole FID {everything:.1f} s, "
        f"detector alone {feed_alone:.1f} s ({count / feed_alone:.0f} images/s): "
        f"overhead {100 * (everything / feed_alone - 1):.1f} %"
    )


def benchmark_others(dims):
    """KID, density and coverage on the features of 2,000 + 2,000 images."""
    a, b = (torch.from_numpy(np.random.RandomState(i).rand(2000, dims)).float() for i in (0, 1))
    click.echo(f"KID of 2,000 + 2,000 features: {timed(kernel_distance, a, b)[0]:.2f} s")
    click.echo(f"density and coverage: {timed(density_coverage, a, b)[0]:.2f} s")


@click.command()
@click.option("--images", default=5000, show_default=True)
@click.option("--dims", default=2048, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--detector", default="inception-2015-12-05", show_default=True, help="Weights are random for this one")
def main(images, dims, threads, detector):
    torch.set_num_threads(threads)
    benchmark_formula(dims)
    benchmark_others(1280)
    with tempfile.TemporaryDirectory() as folder:
        weights = random_inception(Path(folder)) if detector == "inception-2015-12-05" else None
        benchmark_pass(images, weights, detector)


def random_inception(folder):
    """A file of random weights with the published names and shapes (pytorch-fid's class defines them)."""
    path = folder / "inception.pth"
    torch.save(peers.random_inception_state(), path)
    return path


if __name__ == "__main__":
    main()
