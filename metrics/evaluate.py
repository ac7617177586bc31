"""All asked metrics of a generator or of a set of generated images, in one pass of images per side; of two generators
with the same latents."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from metrics.detectors import find_weights
from metrics.evaluation.checks import check
from metrics.evaluation.compare import Comparison, compare
from metrics.evaluation.evaluation import Evaluation
from metrics.evaluation.settings import DEFAULT_BATCH, Settings, Split, no_progress
from metrics.features import Progress
from metrics.names import parse_names
from metrics.result import MetricResult

DEFAULT_RESAMPLINGS = 100  # of a comparison


def compute_metrics(
    names: Sequence[str],
    G: Any = None,
    dataset: Any = None,
    *,
    images: Any = None,
    device: torch.device | str = "cpu",
    batch: int = DEFAULT_BATCH,
    seed: int = 0,
    mirror: bool = False,
    cache: bool = True,
    cache_dir: str | Path | None = None,
    detector_files: Mapping[str, str] | None = None,
    resize_mode: str | None = None,
    bootstrap: int = 0,
    split: Split | None = None,
    progress: Progress = no_progress,
) -> list[MetricResult]:
    """Measures generated images against a data set.

    Args:
        names: metric names (metrics/names.py); all share one pass of generated and one of real images.
        G: the generator (called as G(z, c); on `device`), or None if `images` is given.
        dataset: the whole real data set, not mirrored (an ImageSet, see metrics/sources.py).
        images: a set of generated images to measure instead of a generator's (an ImageSet).
        device: where G and the detectors run.
        batch: images a detector gets at once; results don't depend on it beyond rounding.
        seed: chooses the generated images (see GeneratorSource).
        mirror: training also used mirrored images; only the field's old names (fid50k, ...) count them.
        cache: keep features of the data set in the cache folder.
        cache_dir: another cache folder.
        detector_files: detector name -> weights file.
        resize_mode: another way of resizing to the detectors' input than their own (metrics/detectors/resize.py).
        bootstrap: number of resamplings of the generated images for the values' deviations; 0: none.
        split: what the network was trained on and what not, for metrics that need to know (`mem`).
        progress: called as progress(what, done, in all) along the way.

    With torch.distributed initialised, all ranks call this and share the work; all get the same results. Training's
    random state and G's mode stay as they are. Raises UserError for bad names, missing detectors, too few images,
    non-finite images or features, and networks whose channels or labels differ from the data set's.
    """
    metrics = parse_names(list(names))
    settings = Settings(
        device=device,
        batch=batch,
        seed=seed,
        mirror=mirror,
        cache=cache,
        cache_dir=cache_dir,
        detector_files=detector_files,
        resize_mode=resize_mode,
        bootstrap=bootstrap,
        split=split,
        progress=progress,
    )
    check(metrics, G, dataset, images, split)
    with _measuring(G):
        evaluation = Evaluation(metrics, G, dataset, images, settings)
        evaluation.gather()
        return evaluation.results()


def compare_networks(
    names: Sequence[str],
    A: Any,
    B: Any,
    dataset: Any,
    bootstrap: int = DEFAULT_RESAMPLINGS,
    **settings: Any,
) -> list[Comparison]:
    """Measures generators A and B with the same latents and labels, and how far the differences can be trusted.

    `bootstrap`: resamplings of pairs of generated images, at least 2. The other settings are those of
    `compute_metrics`, and so are the errors.
    """
    metrics = parse_names(list(names))
    chosen = Settings(bootstrap=bootstrap, **settings)
    for G in (A, B):
        check(metrics, G, dataset, None, chosen.split)
    with _measuring(A), _measuring(B):
        return compare(*(Evaluation(metrics, G, dataset, None, chosen) for G in (A, B)))


@contextlib.contextmanager
def _measuring(G: Any) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards G's mode is what it was."""
    was_training = G is not None and G.training
    if G is not None:
        G.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        if was_training:
            G.train()


def require_detectors(names: Sequence[str], detector_files: Mapping[str, str] | None = None) -> None:
    """Makes sure that every metric exists and its detector's file is here, downloading it if need be.

    Raises UserError for an unknown metric, its subclass DetectorMissing for a detector that can't be had.
    """
    files = detector_files or {}
    for metric in parse_names(list(names)):
        find_weights(metric.detector, files.get(metric.detector))
