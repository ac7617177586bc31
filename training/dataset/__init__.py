"""Data sets: reading them for training and metrics, and (in `conversion`) making them from anything of the field."""

from typing import TYPE_CHECKING, Any

from training.dataset.order import sample_order, stream_order

if TYPE_CHECKING:
    from training.dataset.image_dataset import ImageDataset, open_dataset

__all__ = ["ImageDataset", "open_dataset", "sample_order", "stream_order"]


def __getattr__(name: str) -> Any:
    # The converter's worker processes import this package too; they shouldn't each load torch for it.
    if name in ("ImageDataset", "open_dataset"):
        from training.dataset import image_dataset

        return getattr(image_dataset, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
