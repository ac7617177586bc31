"""Two networks side by side: the difference of each metric, and its standard error.

Both make pictures from the same latents and labels, and are resampled together (a bootstrap of pairs, Efron 1979): what
the two have in common, such as the luck of the latents, doesn't count as uncertainty.
"""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dnnlib.files import append
from metrics.evaluation.evaluation import Evaluation
from metrics.result import MetricResult, aligned
from torch_utils.distributed import from_rank_0

_CLEAR = 2.0  # standard errors that a difference must exceed to be called one


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One metric of networks A and B. Deviations over parts (NAME_std) are left out."""

    a: MetricResult
    b: MetricResult
    errors: dict[str, float]  # standard error of B - A by result name; none for families that can't be resampled
    resamplings: int

    @property
    def differences(self) -> dict[str, float]:
        """B - A, by result name."""
        return {name: self.b.results[name] - value for name, value in self.a.results.items()}

    def to_json(self, networks: tuple[str, str]) -> dict[str, Any]:
        """What goes into compare-NAME.jsonl; `networks` are the files' names."""
        common = dataclasses.asdict(self.a)
        for name in ("results", "total_time", "generated"):
            del common[name]
        return {
            "metric": common.pop("metric"),
            "networks": list(networks),
            "results": [self.a.results, self.b.results],
            "differences": self.differences,
            "standard_errors": self.errors,
            "resamplings": self.resamplings,
            "total_time": self.b.total_time,
            "timestamp": time.time(),
        } | {name: value for name, value in common.items() if value is not None}

    def append_to(self, folder: str | Path, networks: tuple[str, str]) -> Path:
        """Adds a line to `compare-NAME.jsonl` in `folder`; returns its path."""
        path = Path(folder) / f"compare-{self.a.metric}.jsonl"
        append(path, json.dumps(self.to_json(networks)) + "\n")
        return path


def compare(a: Evaluation, b: Evaluation) -> list[Comparison]:
    """Measures both; what is real is looked at once. All ranks call this together and get the same."""
    a.gather()
    b.gather(a.real)
    found = []
    for metric, *pair in zip(a.metrics, a.results(with_spread=False), b.results(with_spread=False)):
        errors = from_rank_0(lambda m=metric: _errors(a.resampled(m), b.resampled(m)))  # type: ignore[misc]
        results = [_without_deviations(result) for result in pair]
        found.append(Comparison(results[0], results[1], errors, a.settings.bootstrap))
    return found


def _errors(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(np.std(b[name] - values, ddof=1)) for name, values in a.items()}


def _without_deviations(result: MetricResult) -> MetricResult:
    kept = {name: value for name, value in result.results.items() if not name.endswith("_std")}
    return dataclasses.replace(result, results=kept)


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """Aligned text: both values, the difference with its standard error, and how many of these it is."""
    rows = [("metric", "A", "B", "B - A", "std. error", "in std. errors")]
    for c in comparisons:
        for name, difference in c.differences.items():
            error = c.errors.get(name)
            values = (f"{c.a.results[name]:.5g}", f"{c.b.results[name]:.5g}", f"{difference:+.4g}")
            rows.append((name, *values, "-" if error is None else f"{error:.2g}", _verdict(difference, error)))
    return aligned(rows)


def _verdict(difference: float, error: float | None) -> str:
    if not error:
        return "-"
    ratio = difference / error
    return f"{ratio:+.1f}" + ("" if abs(ratio) > _CLEAR else ": no clear difference")
