"""What a measurement says, and its line in `metric-NAME.jsonl`."""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dnnlib.files import append, read_jsonl


@dataclasses.dataclass(frozen=True)
class MetricResult:
    """Named values of one metric and everything needed to know what was measured.

    `total_time` is in seconds since the start of the call that measured it, passes shared with other metrics included.
    `num_real` is 0 for metrics that use no real images; `seed` is None for sets of ready images.
    """

    metric: str
    results: dict[str, float]
    total_time: float
    detector: str
    detector_version: str
    detector_sha256: str
    resize_mode: str
    num_generated: int
    num_real: int
    dataset: str
    dataset_hash: str
    generated: str
    seed: int | None
    held_out: dict[str, Any] | None = None  # name, hash and count of the pictures that were not trained on

    def __str__(self) -> str:
        """`kid2k_lite0 0.0123` and so on for every value."""
        return ", ".join(f"{name} {value:.5g}" for name, value in self.results.items())

    def to_json(self, snapshot: str | None = None) -> dict[str, Any]:
        """What goes into metric-NAME.jsonl: the field's keys (results, metric, total_time, snapshot_pkl, timestamp),
        then detector, sample counts and hashes. `snapshot` is the network file's name."""
        own = dataclasses.asdict(self)
        head = {"results": own.pop("results"), "metric": own.pop("metric"), "total_time": own.pop("total_time")}
        if self.held_out is None:
            del own["held_out"]
        return head | {"snapshot_pkl": snapshot, "timestamp": time.time()} | own

    def append_to(self, folder: str | Path, snapshot: str | None = None) -> Path:
        """Adds a line to `metric-NAME.jsonl` in `folder`; returns its path."""
        path = Path(folder) / f"metric-{self.metric}.jsonl"
        append(path, json.dumps(self.to_json(snapshot)) + "\n")
        return path


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a metric-NAME.jsonl that say what they should: `results` with finite values by name, `snapshot_pkl`
    and `metric` with a text or nothing. Damaged lines are left out."""
    return [line for line in read_jsonl(path) if _is_result(line)]


def _is_result(line: dict[str, Any]) -> bool:
    results = line.get("results")
    if not isinstance(results, dict) or not results:
        return False
    texts = (line.get("snapshot_pkl"), line.get("metric"))
    return all(map(is_figure, results.values())) and all(t is None or isinstance(t, str) for t in texts)


def is_figure(value: Any) -> bool:
    """Whether this is a number that can be drawn and compared."""
    return type(value) in (int, float) and abs(value) < 1e30


SMALL_SAMPLE = 1000  # values of fewer images say little by themselves, and nothing beside those of other sizes


def table(results: Sequence[MetricResult]) -> str:
    """Results as aligned text: value, metric, and what it was computed from."""
    head = ("metric", "value", "detector", "resize", "generated", "real", "data set")
    rows = [head]
    for r in results:
        for name, value in r.results.items():
            real = f"{r.num_real:,}" if r.num_real else "-"
            data = f"{r.dataset} {r.dataset_hash[:8]}"
            size = f"{r.num_generated:,}" + (" (small sample)" if r.num_generated < SMALL_SAMPLE else "")
            rows.append((name, f"{value:.5g}", r.detector, r.resize_mode, size, real, data))
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines of text, in columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows)
