"""The folder of one training run: its number and name, its log, its statistics, where each artefact goes."""

import json
import re
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from dnnlib.config import to_dict
from torch_utils.training_stats import Stats
from training.config import TrainingConfig


class RunFolder:
    """Writes what a run leaves behind. Only the process of rank 0 has one that writes."""

    def __init__(self, path: Path):
        self.path = path
        self._log: TextIO | None = None
        self._events: Any = None

    @classmethod
    def create(cls, outdir: str, description: str, cfg: TrainingConfig) -> "RunFolder":
        """Makes `outdir/00003-description/`, numbered after the highest there, with training_options.json in it."""
        root = Path(outdir)
        root.mkdir(parents=True, exist_ok=True)
        run = cls(root / f"{_next_number(root):05d}-{description}")
        run.path.mkdir()
        (run.path / "training_options.json").write_text(json.dumps(to_dict(cfg), indent=2) + "\n")
        return run

    def file(self, name: str) -> Path:
        """Path of an artefact."""
        return self.path / name

    def say(self, text: str) -> None:
        """A line for the terminal and log.txt; it doesn't tear a progress bar."""
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
        if self._log is None:
            self._log = open(self.path / "log.txt", "a", encoding="utf-8")  # noqa: SIM115 (open for the whole run)
        self._log.write(text + "\n")
        self._log.flush()

    def add_stats(self, stats: Stats, nimg: int) -> None:
        """Appends a line to stats.jsonl and, where TensorBoard is installed, its scalars."""
        line = {**stats, "timestamp": time.time()}
        self._append("stats.jsonl", line)
        events = self._tensorboard()
        if events is not None:
            for name, value in stats.items():
                events.add_scalar(name, value["mean"], global_step=int(nimg / 1e3))
            events.flush()

    def close(self) -> None:
        """Closes log and events."""
        if self._log is not None:
            self._log.close()
        if self._events:
            self._events.close()

    def _append(self, name: str, line: dict[str, Any]) -> None:
        with open(self.path / name, "a", encoding="utf-8") as f:
            f.write(json.dumps(line) + "\n")

    def _tensorboard(self) -> Any:
        """The event writer, or None where the extra `tensorboard` is not installed."""
        if self._events is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self._events = False
            else:
                self._events = SummaryWriter(str(self.path))
        return self._events or None


def run_description(dataset_name: str, cfg: TrainingConfig) -> str:
    """`cifar10-cifar-batch32`, with what deviates from the usual."""
    parts = [dataset_name, cfg.preset]
    if cfg.data.use_labels:
        parts.append("cond")
    if cfg.data.mirror:
        parts.append("mirror")
    parts.append(f"batch{cfg.batch}")
    if cfg.ada.mode != "ada":
        parts.append(cfg.ada.mode)
    return "-".join(re.sub(r"[^A-Za-z0-9_.]+", "_", p) for p in parts)


def _next_number(root: Path) -> int:
    numbers = [int(m[1]) for p in root.iterdir() if p.is_dir() and (m := re.match(r"(\d+)", p.name))]
    return max(numbers, default=-1) + 1
