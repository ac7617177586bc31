"""The labels of a data set: `dataset.json`, `{"labels": [["00000/img00000000.png", 3], ...] | null}`."""

import json
import unicodedata
from collections.abc import Iterable
from typing import Any

import numpy as np

from dnnlib.errors import UserError

LABEL_FILE = "dataset.json"
CLASS_LIMIT = 100_000
_REDO = "mend dataset.json, or convert again with dataset_tool.py"
_BYTES, _BYTES_AN_IMAGE = 16 << 20, 16 << 10  # what a label file may have; 1,000 numbers take 16 kB
_BRACKETS, _BRACKETS_AN_IMAGE = 1_000_000, 4  # each is a Python object of 64 bytes or more


def normal_name(name: str) -> str:
    """One spelling for each file of an archive or folder: forward slashes, no `.` or empty parts, composed (NFC)
    characters, as not every system writes them."""
    plain = name.isascii() and "\\" not in name and "//" not in name and not name.startswith((".", "/"))
    if plain and "/./" not in name:
        return name
    parts = unicodedata.normalize("NFC", name.replace("\\", "/")).split("/")
    return "/".join(part for part in parts if part not in ("", "."))


def parse_label_file(data: bytes, where: str, images: int = 0) -> dict[str, Any] | None:
    """Content of dataset.json -> file name (as `normal_name` gives it) -> label; None if it holds no labels.

    Raises UserError (naming `where`) if it isn't of the layout above, gives a file two labels, or is far larger than
    labels for so many `images` are: a few kilobytes of an archive can unpack to lists that fill the memory.
    """
    brackets = data.count(b"[") + data.count(b"{")
    if len(data) > _BYTES + images * _BYTES_AN_IMAGE or brackets > _BRACKETS + images * _BRACKETS_AN_IMAGE:
        raise UserError(f"{where}: dataset.json is too large for the labels of {images} images; {_REDO}")
    try:
        content = json.loads(data)
        entries = content["labels"] if isinstance(content, dict) else content
        if entries is None:
            return None
        pairs = entries.items() if isinstance(entries, dict) else entries
        return gather_labels(((str(name), label) for name, label in pairs), f"{where}: dataset.json")
    except (ValueError, TypeError, KeyError, RecursionError) as e:
        raise UserError(
            f'{where}: dataset.json is not of the form {{"labels": [["file.png", 3], ...]}}; {_REDO}'
        ) from e


def gather_labels(pairs: Iterable[tuple[str, Any]], where: str) -> dict[str, Any]:
    """-> normal name -> label. UserError if a file has two labels that differ."""
    labels: dict[str, Any] = {}
    for name, label in pairs:
        known = labels.setdefault(normal_name(name), label)
        if known is not label and known != label:
            raise UserError(f"{where} gives {name} the label {label!r:.40} after {known!r:.40}")
    return labels


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


def match_labels(labels: dict[str, Any], names: list[str], where: str) -> Labels:
    """The labels of the images `names`, in their order.

    Raises UserError if an image has no label, the file labels images that aren't there, or the labels aren't all
    classes or all vectors of one length.
    """
    names = [normal_name(name) for name in names]
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
        if values.max() >= CLASS_LIMIT:
            raise UserError(f"{where}: class {values.max()} is beyond {CLASS_LIMIT - 1}, the largest allowed; {_REDO}")
        return Labels(values.astype(np.int64))
    if values.ndim == 2 and values.shape[1] > 0 and values.dtype.kind in "iuf" and np.isfinite(values).all():
        return Labels(values.astype(np.float32))
    raise UserError(
        f"{where}: labels must be all whole numbers from 0 on, or all lists of numbers of one length; {_REDO}"
    )


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
