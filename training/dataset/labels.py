"""The labels of a data set: `dataset.json`, `{"labels": [["00000/img00000000.png", 3], ...] | null}`."""

import json

import numpy as np

from dnnlib.errors import UserError

LABEL_FILE = "dataset.json"
_CLASS_LIMIT = 100_000
_REDO = "mend dataset.json, or convert again with dataset_tool.py"


def parse_label_file(data: bytes, where: str) -> dict[str, int | list[float]] | None:
    """Content of dataset.json -> file name -> class or vector; None if it holds no labels.

    Raises UserError (naming `where`) if it isn't of the layout above.
    """
    try:
        content = json.loads(data)
        entries = content["labels"] if isinstance(content, dict) else content
        if entries is None:
            return None
        pairs = entries.items() if isinstance(entries, dict) else entries
        return {str(name).replace("\\", "/"): label for name, label in pairs}
    except (ValueError, TypeError, KeyError, RecursionError) as e:
        raise UserError(
            f'{where}: dataset.json is not of the form {{"labels": [["file.png", 3], ...]}}; {_REDO}'
        ) from e


def parse_classes(data: bytes) -> list[str]:
    """The names of the classes that our dataset.json may hold besides the labels; empty if there are none."""
    content = json.loads(data)
    names = content.get("classes") if isinstance(content, dict) else None
    return [str(name) for name in names] if isinstance(names, list) else []


class Labels:
    """Labels of N images: one class each (given out as one-hot rows), or one vector each.

    `values` is int64 [N] or float32 [N, dim]; `dim` is the number of classes (the largest plus one) or the length.
    """

    def __init__(self, values: np.ndarray):
        self.values = values
        self.are_classes = values.ndim == 1
        self.dim = int(values.max()) + 1 if self.are_classes else values.shape[1]

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """float32 [len(indices), dim]"""
        chosen = self.values[indices]
        if not self.are_classes:
            return chosen
        out = np.zeros((len(chosen), self.dim), np.float32)
        out[np.arange(len(chosen)), chosen] = 1
        return out


def match_labels(labels: dict[str, int | list[float]], names: list[str], where: str) -> Labels:
    """The labels of the images `names`, in their order.

    Raises UserError if an image has no label, the file labels images that aren't there, or the labels aren't all
    classes or all vectors of one length.
    """
    missing = [name for name in names if name not in labels]
    if missing:
        raise UserError(f"{where}: dataset.json has no label for {_few(missing)}; {_REDO}")
    if len(labels) > len(names):
        extra = sorted(set(labels) - set(names))
        raise UserError(f"{where}: dataset.json labels images that aren't there: {_few(extra)}; {_REDO}")
    try:
        values = np.array([labels[name] for name in names])
    except ValueError:
        values = np.array(None)
    if values.ndim == 1 and values.dtype.kind in "iu" and values.min() >= 0:
        if values.max() >= _CLASS_LIMIT:
            raise UserError(f"{where}: class {values.max()} is beyond {_CLASS_LIMIT - 1}, the largest allowed; {_REDO}")
        return Labels(values.astype(np.int64))
    if values.ndim == 2 and values.shape[1] > 0 and values.dtype.kind in "iuf" and np.isfinite(values).all():
        return Labels(values.astype(np.float32))
    raise UserError(
        f"{where}: labels must be all whole numbers from 0 on, or all lists of numbers of one length; {_REDO}"
    )


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
