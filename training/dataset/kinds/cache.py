"""Decoded images in memory."""

import mmap
import os
from pathlib import Path

import numpy as np

from training.dataset.decoding import ImageShape

_MEMORY_SHARE = 0.5  # of the memory that is free now may go to decoded images


class DecodedCache:
    """Decoded images, filled as they are first read, in anonymous shared memory: forked workers see one copy.

    Two processes may fill the same place at once; they write the same bytes, and mark it only afterwards.
    """

    def __init__(self, count: int, shape: ImageShape, dtype: type[np.generic]):
        size = count * int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.pixels: np.ndarray | None = None
        if size <= _MEMORY_SHARE * _free_memory() / _processes_here():
            self.pixels = np.frombuffer(mmap.mmap(-1, size), dtype).reshape(count, *shape)
            self._present = np.frombuffer(mmap.mmap(-1, count), np.uint8)

    def get(self, position: int) -> np.ndarray | None:
        if self.pixels is None or not self._present[position]:
            return None
        return self.pixels[position]

    def put(self, position: int, pixels: np.ndarray) -> None:
        if self.pixels is not None:
            self.pixels[position] = pixels
            self._present[position] = 1


def _free_memory() -> int:
    """Bytes of memory that are free or could be freed, within the limit of a container if there is one."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not Linux: all memory there is, or a guess
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4 << 30
    try:
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        return min(free, limit - used)
    except (OSError, ValueError):  # no container, or one without a limit
        return free


def _processes_here() -> int:
    """Training processes on this machine, each of which keeps a cache, as torchrun and our own launcher say."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
