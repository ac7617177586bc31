"""The folder of one training run: its number and name, its log, its statistics, where each artefact goes."""

import contextlib
import json
import os
import random
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dnnlib.cli import printable
from dnnlib.errors import UserError
from dnnlib.files import WriteError, append, cut
from dnnlib.locks import Lock
from dnnlib.progress import tqdm
from torch_utils.training_stats import Stats
from training.config import TrainingConfig
from training.ema.posthoc import drop_later
from training.run.checkpoint import remove_leftovers, run_number, write_config
from training.run.state_checks import check_like
from training.run.trackers import Tracker, open_trackers

LOG_FILE = "log.txt"
STATS_FILE = "stats.jsonl"
LOCK_FILE = ".lock"
_TRIES = 1000  # to get a number that no other run takes at the same time


class RunFolder:
    """Writes what a run leaves behind. Only the process of rank 0 has one.

    It holds a lock on the folder, which ends with the process, so that no two runs write into one. The folder may be a
    stranger's: nothing is written through a link in it.
    """

    def __init__(self, path: Path):
        self.path = path
        self._trackers: list[Tracker] = []
        taken = f"{path} is being trained right now by another process; --new starts a run beside it"
        self._lock = Lock(path / LOCK_FILE, taken)

    @classmethod
    def create(cls, outdir: str, description: str, cfg: TrainingConfig) -> "RunFolder":
        """Makes `outdir/00003-description/`, numbered after the highest there, with training_options.json in it."""
        try:
            path = _new_folder(Path(outdir), description)
        except OSError as e:
            raise UserError(f"--outdir={outdir}: cannot make the run folder: {e.strerror}") from e
        run = cls(path)
        try:
            write_config(path, cfg)
            run._trackers = open_trackers(cfg, path, nimg=None)
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def reopen(cls, path: Path, cfg: TrainingConfig, state: dict[str, Any]) -> "RunFolder":
        """Goes on in an existing folder."""
        run = cls(path)
        try:
            run.rewind(cfg, state)
        except BaseException:
            run.close()
            raise
        return run

    def rewind(self, cfg: TrainingConfig, state: dict[str, Any]) -> None:
        """Drops what was logged or averaged after `state` was saved, it will come again; from here on the run has the
        settings `cfg`. To be called when nothing can be refused any more."""
        check_like(state.get("log_sizes"), {LOG_FILE: 0, STATS_FILE: 0}, "the training state's log_sizes")
        remove_leftovers(self.path)
        for name in (LOG_FILE, STATS_FILE):
            if os.path.lexists(self.file(name)):
                cut(self.file(name), state["log_sizes"][name])
        for file in self.path.glob("metric-*.jsonl"):
            _drop_cut_line(file)
        drop_later(self.path, state["nimg"])
        write_config(self.path, cfg)
        self._trackers = open_trackers(cfg, self.path, nimg=state["nimg"])

    def file(self, name: str) -> Path:
        """Path of an artefact."""
        return self.path / name

    def log_sizes(self) -> dict[str, int]:
        """Bytes of the logs so far."""
        return {n: self.file(n).stat().st_size if self.file(n).is_file() else 0 for n in (LOG_FILE, STATS_FILE)}

    def say(self, text: str, shown: str | None = None) -> None:
        """A line for the terminal (`shown`, where that is shorter) and log.txt; it doesn't tear a progress bar.

        A terminal that is gone is no loss.
        """
        with contextlib.suppress(OSError):
            tqdm.write(printable(text if shown is None else shown), file=sys.stdout)
            sys.stdout.flush()
        append(self.file(LOG_FILE), printable(text) + "\n")

    def add_stats(self, stats: Stats, nimg: int) -> None:
        """Appends a line to stats.jsonl and hands the figures to TensorBoard and the like."""
        append(self.file(STATS_FILE), json.dumps({**stats, "timestamp": time.time()}) + "\n")
        self.track({name: value["mean"] for name, value in stats.items()}, nimg)

    def track(self, values: dict[str, float], nimg: int) -> None:
        """Hands figures to TensorBoard and the like. One that fails is given up, with a line: training matters more."""
        self._tell(lambda tracker: tracker.add(values, nimg))

    def track_picture(self, name: str, file: str, nimg: int) -> None:
        """Hands a picture of the run folder to them likewise."""
        self._tell(lambda tracker: tracker.add_picture(name, self.file(file), nimg))

    def _tell(self, tell: Callable[[Tracker], None]) -> None:
        for tracker in list(self._trackers):
            try:
                tell(tracker)
            except Exception as e:  # theirs are of many kinds
                self._trackers.remove(tracker)
                self.say(f"warning: nothing more is reported to {type(tracker).__name__}: {e}")

    def close(self) -> None:
        """Closes the trackers, and gives up the lock."""
        for tracker in self._trackers:
            with contextlib.suppress(Exception):  # the folder may be gone, the disk full
                tracker.close()
        self._trackers = []
        self._lock.release()


def _new_folder(root: Path, description: str) -> Path:
    """Makes the next numbered folder. Two processes that take one number both see that, and both try again."""
    root.mkdir(parents=True, exist_ok=True)
    for _ in range(_TRIES):
        number = max(_numbers(root), default=-1) + 1
        path = root / f"{number:05d}-{description}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        if _numbers(root).count(number) == 1:
            return path
        path.rmdir()
        time.sleep(random.uniform(0, 0.05))
    raise UserError(f"--outdir={root}: other runs took {_TRIES} numbers before this one")


def _numbers(root: Path) -> list[int]:
    return [n for p in root.iterdir() if (n := run_number(p)) is not None]


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


def _drop_cut_line(file: Path) -> None:
    """A crash may have cut off the last line, and the next one would be glued to it."""
    try:
        content = file.read_bytes()
    except OSError as e:
        raise WriteError(file, e) from e
    if content and not content.endswith(b"\n"):
        cut(file, content.rfind(b"\n") + 1)
