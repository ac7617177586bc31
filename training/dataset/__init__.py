"""Data sets: reading them for training and metrics, and (in `conversion`) making them from anything of the field."""

import importlib
from typing import TYPE_CHECKING, Any

from training.dataset.order import sample_order

if TYPE_CHECKING:
    from training.dataset.image_dataset import ImageDataset, open_dataset
    from training.dataset.stream import MicroBatchStream

__all__ = ["ImageDataset", "MicroBatchStream", "open_dataset", "sample_order"]

_NEEDS_TORCH = {"ImageDataset": "image_dataset", "open_dataset": "image_dataset", "MicroBatchStream": "stream"}


def __getattr__(name: str) -> Any:
    # The converter's worker processes import this package too; they shouldn't each load torch for it.
    if name in _NEEDS_TORCH:
        return getattr(importlib.import_module(f"training.dataset.{_NEEDS_TORCH[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
