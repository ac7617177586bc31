"""--precision=auto: bfloat16 where this processor is made for it, else float32."""

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from dnnlib.cache import cache_root
from dnnlib.errors import UserError
from dnnlib.files import WriteError, atomic_path
from training import networks
from training.config import TrainingConfig

VARIABLE = "STYLELOOM_PRECISION"  # what auto means, without measuring
WORTH_IT = 1.5  # so many times as fast as float32
_ROUNDS = 8
_PRODUCT = (512, 512, 512)
_CONVOLUTION = (8, 64, 32, 32)  # images, channels, height, width


def automatic_precision(cfg: TrainingConfig, device: torch.device) -> tuple[str, str]:
    """The precision to train with where none was asked for, and why, in a few words.

    UserError for a $STYLELOOM_PRECISION that is none.
    """
    wanted = os.environ.get(VARIABLE)
    if wanted:
        if wanted not in ("float32", "bfloat16"):
            raise UserError(f"{VARIABLE}={wanted}: choose float32 or bfloat16")
        return wanted, f"{VARIABLE} says so"
    if device.type != "cpu":
        return "float32", "unless --precision says otherwise"
    with torch.device("meta"):
        if not all(networks.build(c).resolution_modules() for c in (cfg.G, cfg.D)):  # type: ignore[operator]
            return "float32", "these networks know no other precision"
    speedup = bfloat16_speedup()
    return ("bfloat16" if speedup >= WORTH_IT else "float32"), f"bfloat16 runs at {speedup:.2g} times its speed here"


def bfloat16_speedup() -> float:
    """How many times as fast as in float32 this processor multiplies and convolves in bfloat16, the smaller of both.
    Measured once (in a fraction of a second), then read from the cache."""
    file = cache_root() / "bfloat16-speedup.json"
    key = _processor()
    known = _read(file)
    if key not in known:
        known[key] = round(min(_speedup(f) for f in (_products, _convolutions)), 2)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(file) as path:
                Path(path).write_text(json.dumps(known, indent=1) + "\n")
        except (OSError, WriteError):
            pass  # measured again next time
    return known[key]


def _read(file: Path) -> dict[str, float]:
    try:
        found = json.loads(file.read_text())
        return {str(key): float(value) for key, value in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _processor() -> str:
    """What the speeds depend on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        words = ("model name", "model", "flags", "Features")
        found = {name: line for line in reversed(lines) if (name := line.split("\t")[0].strip()) in words}
        cpu = f"{found.get('model name', '')} {found.get('model', '')} amx={'amx_bf16' in found.get('flags', '')}"
    except OSError:
        cpu = platform.processor()
    limits = (os.environ.get(name, "") for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"))
    return " ".join([cpu.replace("\t", " "), torch.__version__, *limits]).strip()


def _speedup(prepare: Callable[[torch.dtype], Callable[[], object]]) -> float:
    """By the processor time of one thread, so that what else the machine does hardly counts."""
    full, half = prepare(torch.float32), prepare(torch.bfloat16)
    times: tuple[list[float], list[float]] = ([], [])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(_ROUNDS):
            for run, found in zip((full, half), times):
                start = time.process_time()
                run()
                found.append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    return min(times[0]) / min(times[1])


def _products(dtype: torch.dtype) -> Callable[[], object]:
    rows, inner, columns = _PRODUCT
    a, b = torch.ones(rows, inner, dtype=dtype), torch.ones(inner, columns, dtype=dtype)
    return lambda: a @ b


def _convolutions(dtype: torch.dtype) -> Callable[[], object]:
    x, w = torch.ones(_CONVOLUTION, dtype=dtype), torch.ones(*[_CONVOLUTION[1]] * 2, 3, 3, dtype=dtype)
    x, w = (t.contiguous(memory_format=torch.channels_last) for t in (x, w))

    def run() -> object:
        with torch.no_grad():
            return F.conv2d(x, w, padding=1)

    return run
