"""STL-10, binary version, as tar.gz or unpacked (https://cs.stanford.edu/~acoates/stl10/).

`*_X.bin` holds pictures of 3 x 96 x 96 bytes, channel by channel, each channel column by column; `*_y.bin` one byte
each, classes 1..10; `class_names.txt` their names.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import IO

import numpy as np

from dnnlib.errors import UserError
from training.conversion.picture import PixelPicture
from training.conversion.sources.base import Item, SourceOptions
from training.conversion.sources.split_parts import choose_parts
from training.conversion.sources.tar_access import members, open_tar

FOLDER = "stl10_binary"
_SIDE = 96
_RECORD = 3 * _SIDE * _SIDE
_UNLABELED = "unlabeled"


class Stl10:
    """The chosen parts one after the other: 5,000 train, 8,000 test, 100,000 unlabeled pictures.

    There are labels only if `unlabeled` isn't among the parts.
    """

    channels = 3

    def __init__(self, path: str, split: str | None):
        self._path = path
        self._parts = choose_parts(split, f"train+{_UNLABELED}", ("train", "test", _UNLABELED))
        self._labelled = _UNLABELED not in self._parts
        self.total: int | None = None
        self.classes = self._read("class_names.txt").decode(errors="replace").split() if self._labelled else []

    def items(self) -> Iterator[Item]:
        """Read record by record."""
        for part in self._parts:
            labels = self._read_labels(part) if self._labelled else None
            for index, picture in enumerate(self._pictures(f"{part}_X.bin")):
                label = None
                if labels is not None:
                    if index >= len(labels):
                        raise self._wrong(f"{part}_y.bin has fewer labels than {part}_X.bin pictures")
                    label = labels[index]
                yield Item(f"{part}[{index}]", label, PixelPicture(picture))

    def _pictures(self, name: str) -> Iterator[np.ndarray]:
        with self._open(name) as f:
            while record := f.read(_RECORD):
                if len(record) != _RECORD:
                    raise self._wrong(f"{name} ends in the middle of a picture")
                columns = np.frombuffer(record, np.uint8).reshape(3, _SIDE, _SIDE)
                yield np.ascontiguousarray(columns.transpose(2, 1, 0))

    def _read_labels(self, part: str) -> list[int]:
        labels = [value - 1 for value in self._read(f"{part}_y.bin")]
        if not all(0 <= label < 10 for label in labels):
            raise self._wrong(f"{part}_y.bin has labels outside 1..10")
        return labels

    def _read(self, name: str) -> bytes:
        with self._open(name) as f:
            return f.read(1 << 20)

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator[IO[bytes]]:
        if os.path.isdir(self._path):
            try:
                f = open(os.path.join(self._path, name), "rb")  # noqa: SIM115 - closed below
            except OSError as e:
                raise self._wrong(f"{name}: {e.strerror}") from e
            with f:
                yield f
            return
        with open_tar(self._path) as tar:
            for member in members(tar):
                if member.name.lstrip("./") == f"{FOLDER}/{name}" and member.isreg() and not member.issparse():
                    content = tar.extractfile(member)
                    assert content is not None  # it is a regular file
                    with content:
                        yield content
                    return
        raise self._wrong(f"{name} is missing")

    def _wrong(self, what: str) -> UserError:
        return UserError(f"{self._path} is not the STL-10 binary data set: {what}; download it again")


def is_stl10(first_name: str) -> bool:
    """True if a path in an archive belongs to the data set."""
    return first_name.lstrip("./").split("/")[0] == FOLDER


def is_stl10_folder(path: str) -> bool:
    """True if the folder holds the unpacked data set."""
    return any(os.path.isfile(os.path.join(path, f"{part}_X.bin")) for part in ("train", "test", _UNLABELED))


def open_stl10(path: str, options: SourceOptions) -> Stl10:
    """The tar.gz as downloaded, or the unpacked folder."""
    return Stl10(path, options.split)
