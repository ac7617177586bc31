"""What a step of the check is given and how it is run."""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Setting:
    """Where the check runs. `is_small`: every step at a size that a CPU manages in seconds."""

    device: torch.device
    is_small: bool
    work: Path  # for runs and files

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def median_ms(self, work: Callable[[], object], runs: int = 20) -> float:
        """Milliseconds that a piece of work takes."""
        times = []
        warm_up, runs = (0, 1) if self.is_small else (3, runs)
        for i in range(warm_up + runs):
            self.synchronize()
            start = time.perf_counter()
            work()
            self.synchronize()
            if i >= warm_up:
                times.append((time.perf_counter() - start) * 1e3)
        return sorted(times)[len(times) // 2]


Step = Callable[[Setting], dict[str, Any]]


class CheckFailed(Exception):
    """What a step found wrong, in one line."""


def require(is_so: bool, why: str) -> None:
    """CheckFailed unless something is so."""
    if not is_so:
        raise CheckFailed(why)


def run_step(name: str, step: Step, setting: Setting) -> dict[str, Any]:
    """What a step measured, with `ok`, `seconds` and, where it failed, `error` (one line) and `traceback`."""
    start = time.perf_counter()
    result: dict[str, Any] = {"name": name, "ok": True}
    try:
        result["measured"] = step(setting)
    except CheckFailed as e:
        result |= {"ok": False, "error": str(e)}
    except Exception as e:
        first = (str(e).strip().splitlines() or [""])[0]
        result |= {"ok": False, "error": f"{type(e).__name__}: {first}"[:200], "traceback": traceback.format_exc()}
    return result | {"seconds": round(time.perf_counter() - start, 1)}
