"""The folder of one training run: its number and name, its log, its statistics, where each artefact goes."""

import fcntl
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dnnlib.errors import UserError
from torch_utils.training_stats import Stats
from training.config import TrainingConfig
from training.run.checkpoint import remove_leftovers, run_number, write_config
from training.run.trackers import Tracker, open_trackers

LOG_FILE = "log.txt"
STATS_FILE = "stats.jsonl"


class RunFolder:
    """Writes what a run leaves behind. Only the process of rank 0 has one.

    It holds a lock on the folder, which ends with the process, so that no two runs write into one.
    """

    def __init__(self, path: Path):
        self.path = path
        self._log = open(path / LOG_FILE, "a", encoding="utf-8")  # noqa: SIM115 (open for the whole run)
        self._trackers: list[Tracker] = []
        try:
            fcntl.lockf(self._log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._log.close()
            raise UserError(
                f"{path} is being trained right now by another process; --new starts a run beside it"
            ) from None

    @classmethod
    def create(cls, outdir: str, description: str, cfg: TrainingConfig) -> "RunFolder":
        """Makes `outdir/00003-description/`, numbered after the highest there, with training_options.json in it."""
        root = Path(outdir)
        try:
            root.mkdir(parents=True, exist_ok=True)
            path = root / f"{_next_number(root):05d}-{description}"
            path.mkdir()
        except OSError as e:
            raise UserError(f"--outdir={outdir}: cannot make the run folder: {e.strerror}") from e
        run = cls(path)
        write_config(path, cfg)
        run._trackers = open_trackers(cfg, path, nimg=None)
        return run

    @classmethod
    def reopen(cls, path: Path, cfg: TrainingConfig, state: dict[str, Any]) -> "RunFolder":
        """Goes on in an existing folder: what was logged after `state` was saved is dropped, it will come again."""
        run = cls(path)
        remove_leftovers(path)
        for name, size in state["log_sizes"].items():
            if (path / name).is_file() and (path / name).stat().st_size > size:
                os.truncate(path / name, size)
        for file in path.glob("metric-*.jsonl"):
            _drop_cut_line(file)
        write_config(path, cfg)
        run._trackers = open_trackers(cfg, path, nimg=state["nimg"])
        return run

    def file(self, name: str) -> Path:
        """Path of an artefact."""
        return self.path / name

    def log_sizes(self) -> dict[str, int]:
        """Bytes of the logs so far."""
        return {n: self.file(n).stat().st_size if self.file(n).is_file() else 0 for n in (LOG_FILE, STATS_FILE)}

    def say(self, text: str, shown: str | None = None) -> None:
        """A line for the terminal (`shown`, where that is shorter) and log.txt; it doesn't tear a progress bar."""
        tqdm.write(text if shown is None else shown, file=sys.stdout)
        sys.stdout.flush()
        self._log.write(text + "\n")
        self._log.flush()

    def add_stats(self, stats: Stats, nimg: int) -> None:
        """Appends a line to stats.jsonl and hands the figures to TensorBoard and the like."""
        with open(self.file(STATS_FILE), "a", encoding="utf-8") as f:
            f.write(json.dumps({**stats, "timestamp": time.time()}) + "\n")
        self.track({name: value["mean"] for name, value in stats.items()}, nimg)

    def track(self, values: dict[str, float], nimg: int) -> None:
        """Hands figures to TensorBoard and the like."""
        for tracker in self._trackers:
            tracker.add(values, nimg)

    def close(self) -> None:
        """Closes log and trackers, and gives up the lock."""
        for tracker in self._trackers:
            tracker.close()
        self._log.close()


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
    if cfg.resume:
        parts.append("resume")
    return "-".join(re.sub(r"[^A-Za-z0-9_.]+", "_", p) for p in parts)


def _next_number(root: Path) -> int:
    numbers = [n for p in root.iterdir() if (n := run_number(p)) is not None]
    return max(numbers, default=-1) + 1


def _drop_cut_line(file: Path) -> None:
    """A crash may have cut off the last line, and the next one would be glued to it."""
    content = file.read_bytes()
    if content and not content.endswith(b"\n"):
        os.truncate(file, content.rfind(b"\n") + 1)
