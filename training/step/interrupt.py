"""Stopping on request: SIGTERM (Slurm, spot machines), SIGINT (Ctrl-C) and SIGHUP (the terminal was closed) are noted,
the trainer stops when it can."""

import os
import signal
import stat
import threading
from types import FrameType
from typing import Any

import torch

from torch_utils import distributed


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
            self._old = {s: signal.signal(s, self._note) for s in distributed.stop_signals()}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = signal.Signals(number).name
        if self.requested == "SIGHUP":
            _leave_terminal()
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


def _leave_terminal() -> None:
    """Output that would go to a terminal goes nowhere from here on: writing to a closed one is an error."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode):
            os.dup2(nowhere, stream)
    os.close(nowhere)
