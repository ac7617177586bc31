"""Stopping on request: SIGTERM (Slurm, spot machines) and SIGINT (Ctrl-C) are noted, the trainer stops when it can."""

import os
import signal
import threading
from types import FrameType
from typing import Any

import torch

from torch_utils import distributed

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopMeasuring(Exception):
    """Leaves a metric unfinished, because the run has been asked to stop."""


class StopRequest:
    """While active (a context manager), signals only set `requested`. A second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.requested: str | None = None  # name of the signal
        self._old: dict[int, Any] = {}
        self._interrupts = 0

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._old = {s: signal.signal(s, self._note) for s in _SIGNALS}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = signal.Signals(number).name
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            raise KeyboardInterrupt
        if number == signal.SIGINT and distributed.is_first_process():
            os.write(2, b"\nstopping after this; Ctrl-C again: now\n")  # a handler may not use buffered streams

    def agreed(self, device: torch.device) -> bool:
        """Whether any process has been asked to stop. All must call this together; all get the same answer."""
        asked = self.requested is not None
        if distributed.world_size() == 1:
            return asked
        return bool(distributed.all_max(torch.tensor(int(asked), device=device)))
