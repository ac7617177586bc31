"""From collected features to named results: one entry per family of metrics, open to plug-ins."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from metrics.formulas.bootstrap import frechet_spread, kernel_spread
from metrics.formulas.frechet import frechet_distance
from metrics.formulas.inception_score import SPLITS, inception_score
from metrics.formulas.kernel import kernel_distance
from metrics.formulas.neighbours import density_coverage, precision_recall
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
    `spread(real, generated features, repeats, device)` -> standard deviation by bootstrap; None: there is none.
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
    spread: Callable[[Any, torch.Tensor, int, torch.device], float] | None = None


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
    return {metric.name: frechet_distance(real, generated)}


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


def _fid_spread(real: Any, generated: torch.Tensor, repeats: int, device: torch.device) -> float:
    return frechet_spread(real, generated, repeats)


def _kid_spread(real: Any, generated: torch.Tensor, repeats: int, device: torch.device) -> float:
    return kernel_spread(real.to(device), generated.to(device), repeats)


_FRECHET = FamilyInfo("moments", "moments", _fid, fewest=2, spread=_fid_spread)
register_family("fid", _FRECHET)
register_family("fd", dataclasses.replace(_FRECHET, default_detector=None))
register_family("kid", FamilyInfo("features", "features", _kid, fewest=2, spread=_kid_spread))
register_family("is", FamilyInfo(None, "probs", _is, fewest=SPLITS, larger_is_better=True))
register_family(
    "pr", FamilyInfo("features", "features", _pr, default_detector=VGG, neighbours=3, larger_is_better=True)
)
register_family("cov", FamilyInfo("features", "features", _cov, neighbours=5, larger_is_better=True))
register_family("ppl", FamilyInfo(measure=perceptual_path_length, detectors=(VGG,), default_detector=VGG))
