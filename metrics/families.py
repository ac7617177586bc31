"""From collected features to named results: one entry per family of metrics, open to plug-ins."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from metrics.formulas.bootstrap import frechet_values, inception_values, kernel_values, multiplicities
from metrics.formulas.frechet import frechet_distance
from metrics.formulas.inception_score import SPLITS, inception_score
from metrics.formulas.kernel import kernel_distance
from metrics.formulas.memorisation import memorisation, memorisation_values, nearest_distances
from metrics.formulas.neighbours import (
    density_coverage,
    density_coverage_values,
    precision_recall,
    precision_recall_values,
)
from metrics.metric import INCEPTION, VGG, Metric
from metrics.path_length import perceptual_path_length


@dataclasses.dataclass(frozen=True)
class FamilyInfo:
    """What a family needs and how it is computed.

    `real_kind` and `generated_kind`: 'moments', 'features' or 'probs' of each side (None: nothing).
    `compute(metric, real, generated, device)` -> {result name: value}.
    `measure`: of a family that needs the generator itself, in place of those: called by all ranks as
    `measure(metric, G, source, detector, batch=, progress=)`, rank 0 returns {result name: value}, the others None.
    `detectors`: the only ones that do; None: any with the outputs that are needed.
    `larger_is_better`: which of two values of the first result is the better one.
    `default_detector`: for names without a detector; None: a name must say it.
    `neighbours`: k of names that don't say it; 0: the family has none.
    `fewest`: images that each side needs at least, beyond the neighbours.
    `resampled(metric, real, generated, rows, device)` -> {result name: values [R]} for resamplings `rows` [R, N] (image
    numbers) of the generated images, of which it gets `resampled_kind`; None: no bootstrap.
    `needs_held_out`: `real` is a pair, of the pictures that were trained on and of others.
    """

    real_kind: str | None = None
    generated_kind: str | None = None
    compute: Callable[[Metric, Any, Any, torch.device], dict[str, float]] | None = None
    measure: Callable[..., dict[str, float] | None] | None = None
    detectors: tuple[str, ...] | None = None
    larger_is_better: bool = False
    default_detector: str | None = INCEPTION
    neighbours: int = 0
    fewest: int = 1
    resampled: Callable[[Metric, Any, Any, np.ndarray, torch.device], dict[str, np.ndarray]] | None = None
    resampled_kind: str = "features"
    needs_held_out: bool = False


FAMILIES: dict[str, FamilyInfo] = {}


def register_family(name: str, info: FamilyInfo) -> None:
    """Makes metric names such as `NAME5k_lite0` known. `name` is of small letters; a name may be given once only."""
    if not (name.isascii() and name.isalpha() and name.islower()):
        raise ValueError(f"a family's name is of small letters, not {name!r}")
    if name in FAMILIES:
        raise ValueError(f"two families register the name {name!r}")
    if (info.compute is None) == (info.measure is None):
        raise ValueError(f"the family {name!r} needs either compute or measure")
    FAMILIES[name] = info


def _fid(metric: Metric, real: Any, generated: Any, device: torch.device) -> dict[str, float]:
    sides = (side.biased() if metric.biased_cov else side for side in (real, generated))
    return {metric.name: frechet_distance(*sides)}


def _kid(metric: Metric, real: Any, generated: Any, device: torch.device) -> dict[str, float]:
    mean, _ = kernel_distance(real.to(device), generated.to(device))
    return {metric.name: mean}


def _is(metric: Metric, real: Any, generated: Any, device: torch.device) -> dict[str, float]:
    mean, std = inception_score(generated)
    return {f"{metric.name}_mean": mean, f"{metric.name}_std": std}


def _pr(metric: Metric, real: Any, generated: Any, device: torch.device) -> dict[str, float]:
    precision, recall = precision_recall(real.to(device), generated.to(device), metric.neighbours)
    return {f"{metric.name}_precision": precision, f"{metric.name}_recall": recall}


def _cov(metric: Metric, real: Any, generated: Any, device: torch.device) -> dict[str, float]:
    density, coverage = density_coverage(real.to(device), generated.to(device), metric.neighbours)
    return {f"{metric.name}_density": density, f"{metric.name}_coverage": coverage}


def _mem(metric: Metric, real: Any, generated: Any, device: torch.device) -> dict[str, float]:
    found = memorisation(*_nearest(real, generated, device))
    return {f"{metric.name}_{key}": value for key, value in found.items()}


def _nearest(real: Any, generated: Any, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """Distances of generated and of held-out pictures to the nearest training picture."""
    training, held_out = (side.to(device) for side in real)
    return nearest_distances(generated.to(device), training), nearest_distances(held_out, training)


# -- for resamplings of the generated images --------------------------------------------------------------------------


def _fids(metric: Metric, real: Any, generated: Any, rows: np.ndarray, device: torch.device) -> dict[str, np.ndarray]:
    return {metric.name: frechet_values(real, generated, rows, metric.biased_cov)}


def _kids(metric: Metric, real: Any, generated: Any, rows: np.ndarray, device: torch.device) -> dict[str, np.ndarray]:
    return {metric.name: kernel_values(real.to(device), generated.to(device), rows)}


def _iss(metric: Metric, real: Any, generated: Any, rows: np.ndarray, device: torch.device) -> dict[str, np.ndarray]:
    return {f"{metric.name}_mean": inception_values(generated, rows)}


def _prs(metric: Metric, real: Any, generated: Any, rows: np.ndarray, device: torch.device) -> dict[str, np.ndarray]:
    weights = multiplicities(rows).to(device)
    values = precision_recall_values(real.to(device), generated.to(device), metric.neighbours, weights)
    return {f"{metric.name}_{key}": v.cpu().numpy() for key, v in zip(("precision", "recall"), values)}


def _covs(metric: Metric, real: Any, generated: Any, rows: np.ndarray, device: torch.device) -> dict[str, np.ndarray]:
    weights = multiplicities(rows).to(device)
    values = density_coverage_values(real.to(device), generated.to(device), metric.neighbours, weights)
    return {f"{metric.name}_{key}": v.cpu().numpy() for key, v in zip(("density", "coverage"), values)}


def _mems(metric: Metric, real: Any, generated: Any, rows: np.ndarray, device: torch.device) -> dict[str, np.ndarray]:
    found = memorisation_values(*_nearest(real, generated, device), rows)
    return {f"{metric.name}_{key}": values for key, values in found.items()}


_FRECHET = FamilyInfo("moments", "moments", _fid, fewest=2, resampled=_fids)
register_family("fid", _FRECHET)
register_family("fd", dataclasses.replace(_FRECHET, default_detector=None))
register_family("kid", FamilyInfo("features", "features", _kid, fewest=2, resampled=_kids))
register_family(
    "is",
    FamilyInfo(None, "probs", _is, fewest=SPLITS, larger_is_better=True, resampled=_iss, resampled_kind="probs"),
)
_NEIGHBOURS = FamilyInfo("features", "features", _pr, neighbours=3, larger_is_better=True, resampled=_prs)
register_family("pr", dataclasses.replace(_NEIGHBOURS, default_detector=VGG))
register_family("cov", dataclasses.replace(_NEIGHBOURS, compute=_cov, neighbours=5, resampled=_covs))
register_family("mem", FamilyInfo("features", "features", _mem, fewest=20, resampled=_mems, needs_held_out=True))
register_family("ppl", FamilyInfo(measure=perceptual_path_length, detectors=(VGG,), default_detector=VGG))
