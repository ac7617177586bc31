"""Which device a command computes on, and what is set once for it."""

import ctypes
import os
from collections.abc import Callable
from typing import Any

import click
import torch

from dnnlib.errors import UserError

VARIABLE = "STYLELOOM_DEVICE"  # how the processes that a command starts learn of its choice
_MALLOPT_TRIM_THRESHOLD, _MALLOPT_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def device_option(command: Callable) -> Callable:
    """`--device` as a click option; the command needn't take it."""
    text = "cuda, cpu, or another that torch finds (mps, xpu)  [default: cuda if there is one, else cpu]"
    return click.option("--device", expose_value=False, callback=_chosen, help=text)(command)


def kind() -> str:
    """The type of device that this command computes on. UserError if it was asked for and isn't there."""
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return "cuda" if torch.cuda.is_available() else "cpu"
    found = available()
    if wanted not in found:
        raise UserError(f"--device={wanted}: torch finds none here, only {', '.join(found)}")
    return wanted


def available() -> list[str]:
    """The types of devices that torch finds here, the best first."""
    other = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    found = ["cuda"] if torch.cuda.is_available() else []
    return [*found, *([other.type] if other is not None and other.type not in found else []), "cpu"]


def count() -> int:
    """Devices that processes can have for themselves; 0 on a CPU, which they share."""
    if kind() == "cpu":
        return 0
    return torch.cuda.device_count() if kind() == "cuda" else torch.accelerator.device_count()


def own_device(rank: int = 0) -> torch.device:
    """The device of a process, made current."""
    if kind() == "cpu":
        keep_large_blocks()
        return torch.device("cpu")
    index = int(os.environ.get("LOCAL_RANK", rank))
    if kind() == "cuda":
        torch.cuda.set_device(index)
    else:
        torch.accelerator.set_device_index(index)
    return torch.device(kind(), index)


def keep_large_blocks() -> None:
    """Keeps freed memory in this process. glibc's malloc gives every block of 32 MiB back to the system, and gets the
    next one page by page, zeroed: StyleNAT at 256x256 samples 1.2 times as fast without. Does nothing elsewhere."""
    mallopt: Any = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_MALLOPT_MMAP_THRESHOLD, 1 << 30)
        mallopt(_MALLOPT_TRIM_THRESHOLD, 2**31 - 1)


def _chosen(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        os.environ[VARIABLE] = value
        kind()
