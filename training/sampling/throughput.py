"""How fast a generator is: images per second by batch size, latency of a single image, peak memory."""

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from training.networks.shared.generator import Generator
from training.sampling.seeds import device_of

WARMUP = 2  # runs whose time doesn't count


@dataclass
class Speed:
    """Speed at one batch size, from z to float images."""

    batch: int
    images_per_second: float  # from the median run
    latency_ms: float  # median time of a run
    latency_p95_ms: float  # 95th percentile
    peak_memory_mb: float  # CUDA: allocated at most; CPU: growth of the process's resident memory over its start


def measure(G: Generator, batch: int, seconds: float = 5.0) -> Speed:
    """Runs the generator on random z for about `seconds`, three runs at least."""
    device = device_of(G)
    z = torch.randn(batch, G.z_dim, device=device)
    c = torch.eye(G.c_dim, device=device)[[0] * batch] if G.c_dim else torch.zeros(batch, 0, device=device)

    @torch.no_grad()
    def run() -> None:
        G(z, c, noise_mode="const")
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    times, peak = _timed(run, seconds, device)
    median = statistics.median(times)
    tail = sorted(times)[min(int(0.95 * len(times)), len(times) - 1)]
    return Speed(batch, batch / median, median * 1e3, tail * 1e3, peak / 2**20)


def _timed(run: Callable[[], None], seconds: float, device: torch.device) -> tuple[list[float], float]:
    """Times of the runs in seconds, and peak memory in bytes. Memory is watched beforehand: watching takes time."""
    with _memory(device) as memory:
        for _ in range(WARMUP):
            run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times, memory.peak


class _CudaMemory:
    def __init__(self, device: torch.device):
        self._device, self.peak = device, 0.0

    def __enter__(self) -> "_CudaMemory":
        torch.cuda.reset_peak_memory_stats(self._device)
        return self

    def __exit__(self, *error: object) -> None:
        self.peak = float(torch.cuda.max_memory_allocated(self._device))


class _ResidentMemory:
    """Samples the process's resident memory (Linux: /proc; elsewhere the peak stays unknown, nan)."""

    INTERVAL = 0.002  # seconds

    def __init__(self) -> None:
        self._file, self._stop = Path("/proc/self/statm"), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak = 0.0 if self._file.exists() else float("nan")

    def __enter__(self) -> "_ResidentMemory":
        self._start = self._resident()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _resident(self) -> int:
        return int(self._file.read_text().split()[1]) * 4096 if self._file.exists() else 0

    def _watch(self) -> None:
        while not self._stop.wait(self.INTERVAL):
            self.peak = max(self.peak, float(self._resident() - self._start))


def _memory(device: torch.device) -> _CudaMemory | _ResidentMemory:
    return _CudaMemory(device) if device.type == "cuda" else _ResidentMemory()


def table(speeds: list[Speed]) -> str:
    """Aligned text, a line per batch size."""
    head = f"{'batch':>5}  {'images/s':>9}  {'latency ms':>10}  {'p95 ms':>8}  {'peak MB':>8}"
    lines = [
        f"{s.batch:5d}  {s.images_per_second:9.2f}  {s.latency_ms:10.2f}  {s.latency_p95_ms:8.2f}"
        f"  {s.peak_memory_mb:8.1f}"
        for s in speeds
    ]
    return "\n".join([head, *lines])
