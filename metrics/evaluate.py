"""All asked metrics of a generator or of a set of generated images, in one pass of images per side."""

import dataclasses
import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dnnlib import UserError
from metrics.detectors import detector_info, find_weights, load_detector
from metrics.detectors.registry import weights_sha256
from metrics.families import FAMILIES
from metrics.feature_cache import FeatureCache, FeatureKey
from metrics.features import Collected, Progress, Want, collect
from metrics.metric import Metric
from metrics.names import parse_names
from metrics.result import MetricResult
from metrics.sources import DatasetSource, GeneratorSource, ImageSet
from torch_utils import distributed
from torch_utils.distributed import agreed, from_rank_0

_SUBSET_SEED = 0  # of the fixed random choice of real images
DEFAULT_BATCH = 64


def no_progress(what: str, done: int, count: int) -> None:
    """Shows nothing."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to measure; nothing here but `seed`, `mirror` and `resize_mode` changes a result beyond rounding."""

    device: torch.device
    batch: int
    seed: int
    mirror: bool
    use_cache: bool
    cache_dir: Path | None
    detector_files: Mapping[str, str]
    resize_mode: str | None
    bootstrap: int
    progress: Progress


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
        bootstrap: number of resamplings of the generated images for the spread of FID and KID; 0: none.
        progress: called as progress(what, done, in all) along the way.

    With torch.distributed initialised, all ranks call this and share the work; all get the same results. Training's
    random state and G's mode stay as they are. Raises UserError for bad names, missing detectors, too few images,
    non-finite images or features, and networks whose channels or labels differ from the data set's.
    """
    metrics = parse_names(list(names))
    settings = Settings(
        device=torch.device(device),
        batch=batch,
        seed=seed,
        mirror=mirror,
        use_cache=cache,
        cache_dir=Path(cache_dir) if cache_dir is not None else None,
        detector_files=dict(detector_files or {}),
        resize_mode=resize_mode,
        bootstrap=bootstrap,
        progress=progress,
    )
    _check(metrics, G, dataset, images)
    was_training = G is not None and G.training
    if G is not None:
        G.eval()
    try:
        with torch.no_grad():
            return _Evaluation(metrics, G, dataset, images, settings).run()
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


def _check(metrics: list[Metric], G: Any, dataset: ImageSet | None, images: ImageSet | None) -> None:
    if dataset is None:
        raise UserError("metrics need a data set to compare with")
    if (G is None) == (images is None):
        raise UserError("metrics measure either a network or a set of images: give one of them")
    real = dataset.image_shape[0]
    made = G.img_channels if G is not None else images.image_shape[0]  # type: ignore[union-attr]
    if made != real:
        subject = "the network makes" if G is not None else f"{images.name} has"  # type: ignore[union-attr]
        raise UserError(f"{subject} images of {made} channels, the data set {dataset.name} has {real}")
    if G is not None and G.c_dim not in (0, dataset.label_dim):
        raise UserError(
            f"the network is conditional with labels of length {G.c_dim}, the labels of {dataset.name} have length "
            f"{dataset.label_dim}; measure it on the data set it was trained on"
        )
    for metric in metrics:
        if FAMILIES[metric.family].measure is not None:
            if G is None:
                raise UserError(f"{metric.name} needs a network, not a set of images")
            continue
        _check_counts(metric, dataset, images)


def _check_counts(metric: Metric, dataset: ImageSet, images: ImageSet | None) -> None:
    family = FAMILIES[metric.family]
    fewest = family.fewest + metric.neighbours
    if family.real_kind is not None and len(dataset) < fewest:
        raise UserError(f"{metric.name} needs at least {fewest} real images, {dataset.name} has {len(dataset)}")
    if images is not None and len(images) < metric.num_generated:
        raise UserError(
            f"{metric.name} needs {metric.num_generated} generated images, {images.name} has {len(images)}; "
            "use a metric of fewer images, e.g. fid5k_full for 5000"
        )


class _Evaluation:
    """One call of compute_metrics."""

    def __init__(self, metrics: list[Metric], G: Any, dataset: Any, images: Any, settings: Settings) -> None:
        self._metrics = metrics
        self._G = G
        self._dataset = dataset
        self._settings = settings
        self._started = time.monotonic()
        self._generator = None
        if G is not None:
            self._generator = GeneratorSource(G, dataset, settings.seed, settings.device)
        self._source = self._generator or DatasetSource(images, np.arange(len(images)))
        self._hash = from_rank_0(dataset.content_hash)
        self._load_detectors()

    def run(self) -> list[MetricResult]:
        """Real images, generated images, formulas."""
        collected = [m for m in self._metrics if FAMILIES[m.family].measure is None]
        real = self._real({m.name: self._real_want(m) for m in collected if FAMILIES[m.family].real_kind})
        generated = self._generated(collected)
        results = []
        for metric in self._metrics:
            measure = FAMILIES[metric.family].measure
            if measure is not None:
                own = measure(
                    metric,
                    self._G,
                    self._generator,
                    self._detectors[metric.detector],
                    batch=self._settings.batch,
                    progress=self._settings.progress,
                )
                values = from_rank_0(lambda v=own: v)  # type: ignore[misc]
            else:
                values = from_rank_0(
                    lambda m=metric: self._formula(m, real.get(m.name), generated)  # type: ignore[misc]
                )
            results.append(self._result(metric, values))
        return results

    def _load_detectors(self) -> None:
        settings = self._settings
        names = list(dict.fromkeys(m.detector for m in self._metrics))
        files = {name: settings.detector_files.get(name) for name in names}
        # Rank 0 first: the others then find what it downloaded.
        self._weights = from_rank_0(lambda: {n: find_weights(n, files[n], settings.cache_dir) for n in names})
        self._detectors = agreed(
            lambda: {
                n: load_detector(n, settings.device, file=self._weights[n], resize_mode=settings.resize_mode)
                for n in names
            }
        )

    def _positions(self, metric: Metric) -> np.ndarray:
        """Sorted positions of the real images a metric uses; from len(dataset) on they are mirrored ones."""
        size = len(self._dataset) * (2 if metric.mirror and self._settings.mirror else 1)
        if metric.num_real is None or metric.num_real >= size:
            return np.arange(size)
        if metric.real_choice == "first":
            return np.arange(metric.num_real)
        return np.sort(np.random.default_rng(_SUBSET_SEED).permutation(size)[: metric.num_real])

    def _real_want(self, metric: Metric) -> Want:
        kind = FAMILIES[metric.family].real_kind
        assert kind is not None
        digest = hashlib.sha256(self._positions(metric).tobytes()).hexdigest()[:24]
        return Want(metric.detector, kind, f"{len(self._positions(metric))}-{digest}")

    def _generated_want(self, metric: Metric) -> Want:
        kind = FAMILIES[metric.family].generated_kind
        assert kind is not None
        return Want(metric.detector, kind, str(metric.num_generated))

    def _spread_want(self, metric: Metric) -> Want:
        return Want(metric.detector, "features", str(metric.num_generated))

    def _has_spread(self, metric: Metric) -> bool:
        return self._settings.bootstrap > 0 and FAMILIES[metric.family].spread is not None

    def _real(self, wants: dict[str, Want]) -> dict[str, Collected]:
        """Metric name -> real features, from the cache or from one pass over the images that are needed."""
        cache = FeatureCache(self._settings.cache_dir)
        known: dict[Want, Collected] = {}
        if self._settings.use_cache and distributed.rank() == 0:
            found = {want: cache.load(self._key(want)) for want in set(wants.values())}
            known = {want: value for want, value in found.items() if value is not None}
        missing = from_rank_0(lambda: [w for w in dict.fromkeys(wants.values()) if w not in known])
        if missing:
            positions = {w.subset: self._positions(m) for m in self._metrics if (w := wants.get(m.name)) in missing}
            union = np.unique(np.concatenate(list(positions.values())))
            subsets = {name: np.searchsorted(union, p) for name, p in positions.items()}
            fresh = self._collect(DatasetSource(self._dataset, union), missing, subsets, "real images")
            if self._settings.use_cache:
                for want, value in fresh.items():
                    cache.save(self._key(want), value)
            known = known | fresh
        return {name: known[want] for name, want in wants.items() if want in known}

    def _generated(self, metrics: list[Metric]) -> dict[Want, Collected]:
        """Generated features, all from one pass."""
        wants = [self._generated_want(m) for m in metrics]
        wants += [self._spread_want(m) for m in metrics if self._has_spread(m)]
        subsets = {w.subset: np.arange(int(w.subset)) for w in wants}
        return self._collect(self._source, wants, subsets, "generated images")

    def _collect(self, source: Any, wants: list[Want], subsets: dict, what: str) -> dict[Want, Collected]:
        return collect(
            source,
            self._detectors,
            wants,
            subsets,
            batch=self._settings.batch,
            device=self._settings.device,
            progress=self._settings.progress,
            what=what,
        )

    def _key(self, want: Want) -> FeatureKey:
        return FeatureKey(
            dataset_hash=self._hash,
            detector=want.detector,
            detector_version=detector_info(want.detector).version,
            weights_sha256=weights_sha256(self._weights[want.detector]),
            resize_mode=self._detectors[want.detector].resize_mode,
            subset=want.subset,
            kind=want.kind,
        )

    def _formula(self, metric: Metric, real: Any, generated: dict[Want, Collected]) -> dict[str, float]:
        family, device = FAMILIES[metric.family], self._settings.device
        assert family.compute is not None
        values = family.compute(metric, real, generated[self._generated_want(metric)], device)
        if self._has_spread(metric):
            assert family.spread is not None
            features = generated[self._spread_want(metric)]
            values[f"{metric.name}_std"] = family.spread(real, features, self._settings.bootstrap, device)  # type: ignore[arg-type]
        return values

    def _result(self, metric: Metric, values: dict[str, float]) -> MetricResult:
        uses_real = FAMILIES[metric.family].real_kind is not None
        return MetricResult(
            metric=metric.name,
            results=values,
            total_time=time.monotonic() - self._started,
            detector=metric.detector,
            detector_version=detector_info(metric.detector).version,
            detector_sha256=weights_sha256(self._weights[metric.detector]),
            resize_mode=self._detectors[metric.detector].resize_mode,
            num_generated=metric.num_generated,
            num_real=len(self._positions(metric)) if uses_real else 0,
            dataset=self._dataset.name,
            dataset_hash=self._hash,
            generated=self._source.name,
            seed=self._settings.seed if self._generator is not None else None,
        )
