"""How to measure, and on which pictures."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from dnnlib import UserError
from metrics.sources import ImageSet

DEFAULT_BATCH = 64


def no_progress(what: str, done: int, count: int) -> None:
    """Shows nothing."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Pictures that a network was trained on, and others of their kind that it has never seen."""

    training: ImageSet  # with mirrored copies where these were trained on
    held_out: ImageSet


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to measure; nothing here but `seed`, `mirror` and `resize_mode` changes a result beyond rounding."""

    device: torch.device | str = "cpu"
    batch: int = DEFAULT_BATCH
    seed: int = 0
    mirror: bool = False
    cache: bool = True
    cache_dir: str | Path | None = None
    detector_files: Mapping[str, str] | None = None
    resize_mode: str | None = None
    bootstrap: int = 0
    split: Split | None = None
    progress: Callable[[str, int, int], None] = no_progress

    def __post_init__(self) -> None:
        if self.bootstrap == 1:
            raise UserError("--bootstrap=1: a deviation wants 2 resamplings or more")
