"""One call: detectors, one pass of real and one of generated images, formulas."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metrics.detectors import detector_info, find_weights, load_detector
from metrics.detectors.registry import weights_sha256
from metrics.evaluation.settings import Settings
from metrics.families import FAMILIES
from metrics.feature_cache import FeatureCache, FeatureKey
from metrics.features import Collected, Want, collect
from metrics.formulas.bootstrap import draw_rows
from metrics.metric import Metric
from metrics.result import MetricResult
from metrics.sources import DatasetSource, GeneratorSource, ImageSet, Source
from torch_utils import distributed
from torch_utils.distributed import agreed, from_rank_0
from training.dataset import pictures

_SUBSET_SEED = 0  # of the fixed random choice of real images


class Evaluation:
    """What metrics say of a generator or of a set of images. All ranks hold one each and call its methods together."""

    def __init__(
        self,
        metrics: Sequence[Metric],
        G: Any,  # or None
        dataset: ImageSet,
        images: ImageSet | None,
        settings: Settings,
    ) -> None:
        self.metrics = metrics
        self.settings = settings
        self._G = G
        self._dataset = dataset
        self._device = torch.device(settings.device)
        self._started = time.monotonic()
        self._generator = None
        if G is not None:
            self._generator = GeneratorSource(G, dataset, settings.seed, settings.device)
        self._source: Source = self._generator or DatasetSource(images, np.arange(len(images)))  # type: ignore[arg-type]
        self._hash: str = from_rank_0(dataset.content_hash)
        self._load_detectors()
        self.real: dict[str, Any] = {}  # metric name -> what it gets of the real images
        self._generated: dict[Want, Collected] = {}

    def gather(self, real: dict[str, Any] | None = None) -> None:
        """Collects features of the real images, unless another evaluation has these, and of the generated ones."""
        self.real = self._gather_real() if real is None else real
        self._generated = self._gather_generated()

    def results(self, with_spread: bool = True) -> list[MetricResult]:
        """Of what was gathered: values, and their deviations by bootstrap if resamplings are asked for."""
        spread = self._spread if with_spread else lambda metric: {}
        return [self._result(metric, self._values(metric) | spread(metric)) for metric in self.metrics]

    def resampled(self, metric: Metric) -> dict[str, np.ndarray]:
        """Values [R] of the metric over R = `settings.bootstrap` resamplings of the generated images, by result name.

        {} for a family that can't; rank 0 has them, the others get {}. The r-th resampling takes the same image numbers
        whatever is measured.
        """
        family = FAMILIES[metric.family]
        if not self._is_resampled(metric) or distributed.rank() != 0:
            return {}
        assert family.resampled is not None
        rows = draw_rows(metric.num_generated, self.settings.bootstrap)
        generated = self._generated[self._resampled_want(metric)]
        return family.resampled(metric, self.real.get(metric.name), generated, rows, self._device)

    def _values(self, metric: Metric) -> dict[str, float]:
        family = FAMILIES[metric.family]
        if family.measure is not None:
            detector, settings = self._detectors[metric.detector], self.settings
            own = family.measure(
                metric, self._G, self._generator, detector, batch=settings.batch, progress=settings.progress
            )
            return from_rank_0(lambda: own or {})
        compute = family.compute
        assert compute is not None
        want = self._generated_want(metric)
        return from_rank_0(
            lambda: compute(metric, self.real.get(metric.name), self._generated[want], self._device)  # on rank 0 only
        )

    def _spread(self, metric: Metric) -> dict[str, float]:
        return from_rank_0(
            lambda: {f"{name}_std": float(np.std(v, ddof=1)) for name, v in self.resampled(metric).items()}
        )

    def _load_detectors(self) -> None:
        settings = self.settings
        names = list(dict.fromkeys(m.detector for m in self.metrics))
        given = settings.detector_files or {}
        files = {name: given.get(name) for name in names}
        cache_dir = None if settings.cache_dir is None else Path(settings.cache_dir)
        # Rank 0 first: the others then find what it downloaded.
        self._weights = from_rank_0(lambda: {n: find_weights(n, files[n], cache_dir) for n in names})
        self._detectors = agreed(
            lambda: {
                n: load_detector(n, self._device, file=self._weights[n], resize_mode=settings.resize_mode)
                for n in names
            }
        )

    # -- what is wanted -----------------------------------------------------------------------------------------------

    def _positions(self, metric: Metric) -> np.ndarray:
        """Sorted positions of the real images a metric uses; from len(dataset) on they are mirrored ones."""
        size = len(self._dataset) * (2 if metric.mirror and self.settings.mirror else 1)
        if metric.num_real is None or metric.num_real >= size:
            return np.arange(size)
        if metric.real_choice == "first":
            return np.arange(metric.num_real)
        return np.sort(np.random.default_rng(_SUBSET_SEED).permutation(size)[: metric.num_real])

    def _generated_want(self, metric: Metric) -> Want:
        kind = FAMILIES[metric.family].generated_kind
        assert kind is not None
        return Want(metric.detector, kind, str(metric.num_generated))

    def _resampled_want(self, metric: Metric) -> Want:
        return Want(metric.detector, FAMILIES[metric.family].resampled_kind, str(metric.num_generated))

    def _is_resampled(self, metric: Metric) -> bool:
        return self.settings.bootstrap > 0 and FAMILIES[metric.family].resampled is not None

    # -- passes -------------------------------------------------------------------------------------------------------

    def _gather_real(self) -> dict[str, Any]:
        plain = [m for m in self.metrics if FAMILIES[m.family].real_kind and not FAMILIES[m.family].needs_held_out]
        found: dict[str, Any] = dict(
            self._of_set(self._dataset, self._hash, {m: self._positions(m) for m in plain}, "real images")
        )
        split, both = self.settings.split, [m for m in self.metrics if FAMILIES[m.family].needs_held_out]
        if both:
            assert split is not None
            parts = []
            for images, what in ((split.training, "training images"), (split.held_out, "held-out images")):
                everything = {m: np.arange(len(images)) for m in both}
                parts.append(self._of_set(images, from_rank_0(images.content_hash), everything, what))
            found |= {name: (parts[0][name], parts[1][name]) for name in parts[0]}
        return found

    def _of_set(
        self, images: ImageSet, content_hash: str, positions: dict[Metric, np.ndarray], what: str
    ) -> dict[str, Collected]:
        """Metric name -> what it wants of a set, from the cache or from one pass over the images that are needed."""
        wants = {metric: self._set_want(metric, chosen) for metric, chosen in positions.items()}
        cache = FeatureCache(None if self.settings.cache_dir is None else Path(self.settings.cache_dir))
        known: dict[Want, Collected] = {}
        if self.settings.cache and distributed.rank() == 0:
            found = {want: cache.load(self._key(want, content_hash)) for want in set(wants.values())}
            known = {want: value for want, value in found.items() if value is not None}
        missing = from_rank_0(lambda: [w for w in dict.fromkeys(wants.values()) if w not in known])
        if missing:
            needed = {want.subset: positions[metric] for metric, want in wants.items() if want in missing}
            union = np.unique(np.concatenate(list(needed.values())))
            subsets = {name: np.searchsorted(union, p) for name, p in needed.items()}
            fresh = self._collect(DatasetSource(images, union), missing, subsets, what)
            if self.settings.cache:
                for want, value in fresh.items():
                    cache.save(self._key(want, content_hash), value)
            known = known | fresh
        return {metric.name: known[want] for metric, want in wants.items() if want in known}

    def _set_want(self, metric: Metric, positions: np.ndarray) -> Want:
        kind = FAMILIES[metric.family].real_kind
        assert kind is not None
        digest = hashlib.sha256(positions.tobytes()).hexdigest()[:24]
        return Want(metric.detector, kind, f"{len(positions)}-{digest}")

    def _gather_generated(self) -> dict[Want, Collected]:
        """Generated features, all from one pass."""
        wants = [self._generated_want(m) for m in self.metrics if FAMILIES[m.family].measure is None]
        wants += [self._resampled_want(m) for m in self.metrics if self._is_resampled(m)]
        subsets = {w.subset: np.arange(int(w.subset)) for w in wants}
        return self._collect(self._source, wants, subsets, "generated images")

    def _collect(self, source: Source, wants: list[Want], subsets: dict, what: str) -> dict[Want, Collected]:
        return collect(
            source,
            self._detectors,
            wants,
            subsets,
            batch=self.settings.batch,
            device=self._device,
            progress=self.settings.progress,
            what=what,
        )

    def _key(self, want: Want, content_hash: str) -> FeatureKey:
        return FeatureKey(
            dataset_hash=content_hash,
            reader_version=pictures.VERSION,
            detector=want.detector,
            detector_version=detector_info(want.detector).version,
            weights_sha256=weights_sha256(self._weights[want.detector]),
            resize_mode=self._detectors[want.detector].resize_mode,
            subset=want.subset,
            kind=want.kind,
        )

    def _result(self, metric: Metric, values: dict[str, float]) -> MetricResult:
        family, split = FAMILIES[metric.family], self.settings.split
        num_real = len(self._positions(metric)) if family.real_kind is not None else 0
        dataset, content_hash, held_out = self._dataset, self._hash, None
        if family.needs_held_out:
            assert split is not None
            dataset, num_real = split.training, len(split.training)
            content_hash = from_rank_0(split.training.content_hash)
            other = split.held_out
            held_out = {
                "name": other.name, "hash": from_rank_0(other.content_hash), "count": len(other)
            }  # fmt: skip
        return MetricResult(
            metric=metric.name,
            results=values,
            total_time=time.monotonic() - self._started,
            detector=metric.detector,
            detector_version=detector_info(metric.detector).version,
            detector_sha256=weights_sha256(self._weights[metric.detector]),
            resize_mode=self._detectors[metric.detector].resize_mode,
            num_generated=metric.num_generated,
            num_real=num_real,
            dataset=dataset.name,
            dataset_hash=content_hash,
            generated=self._source.name,
            seed=self.settings.seed if self._generator is not None else None,
            held_out=held_out,
        )
