"""MNIST and its kin (Fashion-MNIST, KMNIST...): idx files, gzipped or not (http://yann.lecun.com/exdb/mnist/).

Header of big-endian 32-bit numbers: 0x0803 (bytes in three dimensions), count, height, width; labels: 0x0801, count.
"""

import gzip
import itertools
import os
import re
import struct
import zlib
from collections.abc import Iterator
from typing import IO, cast

import numpy as np

from dnnlib.errors import UserError
from training.conversion.picture import PixelPicture
from training.conversion.sources.base import Item, SourceOptions
from training.conversion.sources.split_parts import choose_parts
from training.conversion.text import one_line

_IMAGES, _LABELS = 0x00000803, 0x00000801
_PAD = 2  # pixels on each side: 28 -> 32, as the field's tool does
_MAX_SIDE = 4096


class Mnist:
    """Grey pictures with two black pixels around; labels from the label files beside them, if they are there."""

    channels = 1
    classes: list[str] = []

    def __init__(self, image_files: list[str]):
        self._files = image_files
        with_labels = [os.path.isfile(_label_file(path)) for path in image_files]
        if len(set(with_labels)) > 1:
            raise UserError(f"the label file of {image_files[with_labels.index(False)]} is missing")
        self._labelled = with_labels[0]
        self.total: int | None = sum(self._count(path) for path in image_files)

    def items(self) -> Iterator[Item]:
        """Read picture by picture."""
        for path in self._files:
            labels = _read_labels(_label_file(path), self._count(path)) if self._labelled else itertools.repeat(None)
            for index, (pixels, label) in enumerate(zip(_read_pictures(path), labels)):
                yield Item(f"{os.path.basename(path)}[{index}]", label, PixelPicture(np.pad(pixels, _PAD)))

    @staticmethod
    def _count(path: str) -> int:
        with _open(path) as f:
            return _image_header(f, path)[0]


def is_idx(path: str) -> bool:
    """True if the file is an idx file of pictures."""
    try:
        with _open(path) as f:
            return f.read(4) == struct.pack(">I", _IMAGES)
    except (OSError, EOFError, zlib.error):
        return False


def is_mnist_folder(path: str) -> bool:
    """True if the folder holds the data set's train or test pictures."""
    return any(_find(path, part) for part in ("train", "test"))


def open_idx(path: str, options: SourceOptions) -> Mnist:
    """One idx file of pictures."""
    return Mnist([path])


def open_mnist_folder(path: str, options: SourceOptions) -> Mnist:
    """A folder with the four files of the data set."""
    parts = choose_parts(options.split, "train", ("train", "test"))
    files = [_find(path, part) for part in parts]
    missing = [part for part, file in zip(parts, files) if file is None]
    if missing:
        raise UserError(f"{path} has no idx file of the {missing[0]} pictures")
    return Mnist([file for file in files if file is not None])


def _find(folder: str, part: str) -> str | None:
    prefix = {"train": "train", "test": "t10k"}[part]
    for name in (f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-images-idx3-ubyte", f"{prefix}-images.idx3-ubyte"):
        if os.path.isfile(os.path.join(folder, name)):
            return os.path.join(folder, name)
    return None


def _label_file(image_file: str) -> str:
    folder, name = os.path.split(image_file)
    return os.path.join(folder, re.sub(r"images([-.])idx3", r"labels\1idx1", name))


def _open(path: str) -> IO[bytes]:
    with open(path, "rb") as f:
        packed = f.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path, "rb")) if packed else open(path, "rb")


def _read_pictures(path: str) -> Iterator[np.ndarray]:
    with _open(path) as f:
        count, height, width = _image_header(f, path)
        for _ in range(count):
            yield np.frombuffer(_exactly(f, height * width, path), np.uint8).reshape(height, width)


def _image_header(f: IO[bytes], path: str) -> tuple[int, int, int]:
    magic, count, height, width = struct.unpack(">4I", _exactly(f, 16, path))
    if magic != _IMAGES or not (0 < height <= _MAX_SIDE and 0 < width <= _MAX_SIDE):
        raise UserError(f"{path} is no idx file of pictures; download it again")
    return count, height, width


def _read_labels(path: str, pictures: int) -> Iterator[int]:
    with _open(path) as f:
        magic, count = struct.unpack(">2I", _exactly(f, 8, path))
        if magic != _LABELS:
            raise UserError(f"{path} is no idx file of labels; download it again")
        if count != pictures:
            raise UserError(f"{path} has {count} labels for {pictures} pictures")
        for _ in range(count):  # not all at once: a few kilobytes may unpack to any number
            yield _exactly(f, 1, path)[0]


def _exactly(f: IO[bytes], count: int, path: str) -> bytes:
    try:
        data = f.read(count)
    except (OSError, EOFError, zlib.error) as e:
        raise UserError(f"{path} is damaged ({one_line(e)}); download it again") from e
    if len(data) != count:
        raise UserError(f"{path} is shorter than it says; download it again")
    return data
