"""CIFAR-10 and CIFAR-100, python version, as tar.gz or unpacked (https://www.cs.toronto.edu/~kriz/cifar.html).

Each batch file is a pickle of a dict: `data` uint8 [N, 3072] (1024 red, 1024 green, 1024 blue values, row by row),
`labels` or `fine_labels` a list of N classes.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dnnlib.errors import UserError
from torch_utils.files.safe_pickle import Constant, Constructor, Reader, Stateful
from training.conversion.picture import PixelPicture
from training.conversion.sources.base import Item, SourceOptions
from training.conversion.sources.split_parts import choose_parts
from training.conversion.sources.tar_access import members, open_tar, read_member
from training.conversion.text import one_line
from training.dataset.folder_reader import read_file
from training.dataset.zip_reader import BadMember

_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class _Layout:
    """What tells the two data sets apart."""

    folder: str
    parts: dict[str, tuple[str, ...]]
    labels: str
    meta: str
    class_names: str


_LAYOUTS = (
    _Layout(
        "cifar-10-batches-py",
        {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
        "labels",
        "batches.meta",
        "label_names",
    ),
    _Layout("cifar-100-python", {"train": ("train",), "test": ("test",)}, "fine_labels", "meta", "fine_label_names"),
)


class Cifar:
    """The pictures of the chosen parts in the order of their batches; labels are the (fine) classes."""

    channels = 3

    def __init__(self, path: str, layout: _Layout, split: str | None):
        self._path = path
        self._layout = layout
        parts = choose_parts(split, "train", tuple(layout.parts))
        self._batches = [batch for part in parts for batch in layout.parts[part]]
        self.total: int | None = None
        self.classes = self._read_classes()

    def items(self) -> Iterator[Item]:
        """Batch by batch, so at most one batch (30 MB; 150 MB for CIFAR-100) is in memory."""
        for batch in self._batches:
            with self._files() as read:
                pixels, labels = self._parse(read(batch), batch)
            for index, label in enumerate(labels):
                picture = pixels[index].reshape(3, 32, 32).transpose(1, 2, 0)
                yield Item(f"{batch}[{index}]", label, PixelPicture(np.ascontiguousarray(picture)))

    def _parse(self, data: bytes, batch: str) -> tuple[np.ndarray, list[int]]:
        content = self._load(data, batch)
        pixels, labels = content.get("data"), content.get(self._layout.labels)
        fits = isinstance(pixels, np.ndarray) and pixels.ndim == 2 and pixels.shape[1] == _PIXELS
        if not fits or not isinstance(labels, list) or len(labels) != len(pixels):  # type: ignore[arg-type]
            raise self._wrong(f"{batch} has no data of N x {_PIXELS} bytes with N {self._layout.labels}")
        if not all(type(label) is int and 0 <= label < 100 for label in labels):
            raise self._wrong(f"{batch} has labels that are no class numbers")
        return pixels, labels  # type: ignore[return-value]

    def _read_classes(self) -> list[str]:
        with self._files() as read:
            names = self._load(read(self._layout.meta), self._layout.meta).get(self._layout.class_names)
        if not isinstance(names, list):
            raise self._wrong(f"{self._layout.meta} has no {self._layout.class_names}")
        return [str(name) for name in names]

    def _load(self, data: bytes, name: str) -> dict[str, Any]:
        try:
            content = Reader(data, _ALLOWED, name).load()
            return {key: _plain(value) for key, value in content.items()}
        except UserError as e:
            raise self._wrong(str(e) if name in str(e) else f"{name}: {e}") from e
        except Exception as e:  # a damaged pickle can raise nearly every kind of exception
            raise self._wrong(f"{name} is damaged: {type(e).__name__} {one_line(e)}") from e

    @contextlib.contextmanager
    def _files(self) -> Iterator[Callable[[str], bytes]]:
        """A function that reads a file of the data set by its name."""
        if os.path.isdir(self._path):
            yield self._read_from_folder
            return
        with open_tar(self._path) as tar:

            def read(name: str) -> bytes:
                for member in members(tar):
                    if member.name.lstrip("./") == f"{self._layout.folder}/{name}":
                        return read_member(tar, member)
                raise self._wrong(f"{name} is missing")

            yield read

    def _read_from_folder(self, name: str) -> bytes:
        try:
            return read_file(os.path.join(self._path, name))
        except BadMember as e:
            raise self._wrong(f"{name} {e}") from e

    def _wrong(self, what: str) -> UserError:
        return UserError(f"{self._path} is not the {self._layout.folder} data set: {what}; download it again")


def is_cifar(first_name: str) -> bool:
    """True if a path in an archive, or a folder's name, belongs to one of the data sets."""
    return first_name.lstrip("./").split("/")[0] in [layout.folder for layout in _LAYOUTS]


def is_cifar_folder(path: str) -> bool:
    """True if the folder holds one of the data sets, unpacked."""
    return any(os.path.isfile(os.path.join(path, layout.meta)) for layout in _LAYOUTS)


def open_cifar_tar(path: str, options: SourceOptions) -> Cifar:
    """The tar.gz as downloaded."""
    with open_tar(path) as tar:
        tops = (member.name.lstrip("./").split("/")[0] for member in members(tar))
        first = next(top for top in tops if top)
    return Cifar(path, next(layout for layout in _LAYOUTS if layout.folder == first), options.split)


def open_cifar_folder(path: str, options: SourceOptions) -> Cifar:
    """The unpacked folder."""
    layout = next(x for x in _LAYOUTS if os.path.isfile(os.path.join(path, x.meta)))
    return Cifar(path, layout, options.split)


class _PickledArray(Stateful):
    """Stands for a numpy array inside a pickle: keeps what it is given, runs nothing."""

    def __init__(self, *args: Any):
        self._state: Any = None

    def set_state(self, state: Any) -> None:
        """As numpy documents it: version, shape, dtype, whether in Fortran's order, content."""
        self._state = state

    def to_numpy(self) -> np.ndarray:
        """The array, if it is one of bytes; shares the memory of the pickle."""
        _, shape, dtype, is_fortran, content = self._state
        if isinstance(content, str):  # Python 2's pickles know no bytes
            content = content.encode("latin-1")
        if not isinstance(dtype, _PickledType) or dtype.code != "u1" or not isinstance(content, bytes | memoryview):
            raise UserError("its data are no bytes")
        if len(content) != math.prod(shape):
            raise UserError("its data don't have the size they say")
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if is_fortran else "C")


def _from_buffer(content: Any, dtype: Any, shape: Any, order: str, axes: Any = None) -> _PickledArray:
    """How numpy writes an array from pickle protocol 5 on."""
    array = _PickledArray()
    array.set_state((1, shape, dtype, order == "F", content))
    return array


class _PickledType(Stateful):
    """Stands for a numpy dtype inside a pickle."""

    def __init__(self, code: Any = None, *args: Any):
        self.code = code

    def set_state(self, state: Any) -> None:
        """Byte order and flags, of no concern to bytes."""


def _latin1(text: Any, encoding: Any) -> str:
    """A call of _codecs.encode, as which Python 3 writes bytes to old pickles: here the text, as Python 2's pickles
    have it. What is needed as bytes is encoded then: a pickle may ask for it a million times."""
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise UserError(f"refusing to encode by {encoding!r:.40}")
    return text


_ALLOWED: dict[str, Constructor | Constant] = {
    "numpy.core.multiarray._reconstruct": _PickledArray,
    "numpy._core.multiarray._reconstruct": _PickledArray,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy.ndarray": Constant("numpy.ndarray"),  # an argument of _reconstruct
    "numpy.dtype": _PickledType,
    "_codecs.encode": _latin1,
}


def _plain(value: Any) -> Any:
    return value.to_numpy() if isinstance(value, _PickledArray) else value
