"""From collected features to named results: one entry per family of metrics."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from metrics.formulas.frechet import frechet_distance
from metrics.formulas.inception_score import SPLITS, inception_score
from metrics.formulas.kernel import kernel_distance
from metrics.formulas.neighbours import density_coverage, precision_recall
from metrics.names import Metric


@dataclasses.dataclass(frozen=True)
class FamilyInfo:
    """What a family needs of the two sides (None: nothing), the fewest images of each, and its formula."""

    real_kind: str | None
    generated_kind: str
    fewest: Callable[[Metric], int]
    compute: Callable[[Metric, Any, Any, torch.device], dict[str, float]]


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


FAMILIES: dict[str, FamilyInfo] = {
    "fid": FamilyInfo("moments", "moments", lambda m: 2, _fid),
    "kid": FamilyInfo("features", "features", lambda m: 2, _kid),
    "is": FamilyInfo(None, "probs", lambda m: SPLITS, _is),
    "pr": FamilyInfo("features", "features", lambda m: m.neighbours + 1, _pr),
    "cov": FamilyInfo("features", "features", lambda m: m.neighbours + 1, _cov),
}
