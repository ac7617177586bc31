"""Clock and memory figures of the status line."""

import sys
import time

import torch

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]


class Stopwatch:
    """Splits time into training and maintenance (reports, snapshots, metrics)."""

    def __init__(self) -> None:
        self.start = self._mark = time.monotonic()
        self.last_training = 0.0  # seconds of training before the current report
        self.last_maintenance = 0.0  # seconds of the maintenance before that
        self.last_kimg = 0.0  # kimg at the report before

    @property
    def total(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    def begin_maintenance(self) -> None:
        """Training pauses here."""
        now = time.monotonic()
        self.last_training, self._mark = now - self._mark, now

    def end_maintenance(self) -> None:
        """Training goes on here."""
        now = time.monotonic()
        self.last_maintenance, self._mark = now - self._mark, now

    def state(self, is_maintenance: bool) -> dict[str, float]:
        """What to save: seconds in all, seconds of training since the last report, kimg then."""
        since = 0.0 if is_maintenance else time.monotonic() - self._mark
        return {"total": self.total, "training": since, "last_kimg": self.last_kimg}

    def load_state(self, state: dict[str, float]) -> None:
        """Goes on from what `state` gave; the time between doesn't count."""
        now = time.monotonic()
        self.start, self._mark, self.last_kimg = now - state["total"], now - state["training"], state["last_kimg"]


def memory_gib(device: torch.device) -> tuple[float, float]:
    """(peak resident memory of this process, peak allocated memory of the GPU since the last call), in GiB; 0 for what
    is unknown."""
    unit = 2**30 if sys.platform == "darwin" else 2**20  # getrusage counts bytes on macOS, KiB elsewhere
    cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit if resource is not None else 0.0
    if device.type != "cuda":
        return cpu, 0.0
    gpu = torch.cuda.max_memory_allocated(device) / 2**30
    torch.cuda.reset_peak_memory_stats(device)
    return cpu, gpu
