"""Writing a data set so that its destination is either what it was before or complete, whatever happens.

Everything goes to a hidden `.NAME.partial` folder beside the destination, is flushed to the disk, and is renamed in
one step. What a killed run left there is cleared by the next one; a lock keeps two runs at once apart.
"""

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from dnnlib.errors import UserError
from dnnlib.files import sync_folder
from dnnlib.locks import Lock
from training.conversion.labels.kinds import Label, LabelTally
from training.conversion.png import image_name
from training.dataset.kinds.latents import DESCRIPTION, latent_name, thumbnail_name
from training.dataset.labels import LABEL_FILE
from training.dataset.zip_writer import ZipWriter

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FileSink(Protocol):
    """Where the files of a data set go."""

    def write(self, name: str, data: bytes) -> None:
        """Adds a file."""

    def close(self) -> None:
        """Everything is on the disk after this."""


class DatasetWriter:
    """Names the images, puts them into one sink or, with `shard_size`, a new one for every so many images.

    `new_sink(number)` opens sink 0, 1, ... Each gets a dataset.json of its own. Labels wait in `folder` meanwhile.
    """

    def __init__(self, new_sink: Callable[[int], FileSink], folder: str, shard_size: int | None = None):
        self._new_sink = new_sink
        self._shard_size = shard_size
        self._shards = 0
        self._sink: FileSink | None = None
        self._labels = _LabelSpool(folder)
        self.classes: list[str] = []
        self.description: dict[str, Any] | None = None  # of latents; None: the data set holds pictures
        self.count = 0
        self.labelled = 0
        self.tally = LabelTally()

    def add(self, png: bytes, label: Label, moments: bytes | None = None) -> None:
        """Writes the next image: a picture, or with `moments` those of its latent and the picture as its thumbnail. A
        label is a class number or a vector; UserError if it isn't, or of another kind than those before it."""
        if label is not None:
            self.tally.add(label)
        if self._sink is None or (self._shard_size and self.count == self._shards * self._shard_size):
            self._close_sink()
            self._sink = self._new_sink(self._shards)
            self._shards += 1
        name = image_name(self.count)
        if moments is None:
            self._sink.write(name, png)
        else:
            name = latent_name(name)
            self._sink.write(name, moments)
            self._sink.write(thumbnail_name(name), png)
        self.count += 1
        if label is not None:
            self._labels.add(name, label)
            self.labelled += 1

    def finish(self) -> None:
        """Completes the files. Raises UserError if there is no image, or only some have labels."""
        if not self.count:
            raise UserError("no image could be converted; nothing was written")
        if self.labelled not in (0, self.count):
            raise UserError(f"only {self.labelled} of {self.count} images have a label; label all or none")
        self._close_sink()

    def _close_sink(self) -> None:
        if self._sink is not None:
            self._sink.write(LABEL_FILE, self._labels.take(self.classes))
            if self.description is not None:
                self._sink.write(DESCRIPTION, json.dumps(self.description, indent=1).encode())
            self._sink.close()
            self._sink = None


class _LabelSpool:
    """Collects labels on disk, so that their number doesn't show in memory."""

    def __init__(self, folder: str) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as the spool

    def add(self, name: str, label: int | list[float]) -> None:
        separator = ",\n" if self._file.tell() else "\n"
        self._file.write(f"{separator}{json.dumps([name, label])}".encode())

    def take(self, classes: list[str]) -> bytes:
        """dataset.json for what was added; starts afresh."""
        if not self._file.tell():
            return b'{"labels": null}\n'
        self._file.seek(0)
        names = b', "classes": ' + json.dumps(classes).encode() if classes else b""
        content = b'{"labels": [' + self._file.read() + b"\n]" + names + b"}\n"
        self._file.seek(0)
        self._file.truncate()
        return content


class ZipSink:
    """A new zip file at `path`."""

    def __init__(self, path: str):
        self._file = open(path, "xb")  # noqa: SIM115 - closed in close()
        self._zip = ZipWriter(self._file)

    def write(self, name: str, data: bytes) -> None:
        """Adds a member."""
        self._zip.write(name, data)

    def close(self) -> None:
        """Writes the directory and flushes to the disk."""
        self._zip.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


class FolderSink:
    """Files below a new folder at `path`."""

    def __init__(self, path: str):
        self._path = path
        os.mkdir(path)

    def write(self, name: str, data: bytes) -> None:
        """Adds a file."""
        target = os.path.join(self._path, *name.split("/"))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "xb") as f:
            f.write(data)

    def close(self) -> None:
        """Flushes all files to the disk (one system-wide call is far quicker than one per file)."""
        if hasattr(os, "sync"):
            os.sync()


def check_destination(path: str) -> None:
    """Raises UserError if `path` can't become a data set: an existing folder with content, or another kind of file."""
    suffix = os.path.splitext(path.rstrip("/"))[1].lower()
    if suffix and suffix != ".zip" and not os.path.isdir(path):
        raise UserError(f"--dest={path}: a data set is a .zip file or a folder, not a {suffix} file")
    if suffix == ".zip" and os.path.isdir(path):
        raise UserError(f"--dest={path} is a folder; name a file or remove it")
    if suffix != ".zip" and os.path.exists(path) and not (os.path.isdir(path) and not os.listdir(path)):
        raise UserError(f"--dest={path} exists and is no empty folder; choose a new name or remove it")


@contextlib.contextmanager
def open_destination(path: str, shard_size: int | None = None) -> Iterator[DatasetWriter]:
    """A writer for the data set `path`: a zip if the name ends in .zip, else a folder (of zips with `shard_size`).

    The destination appears when the block ends; if an exception ends it, the old one stays. Raises UserError if it
    can't be written: no permission, disk full, another run is writing it.
    """
    check_destination(path)
    full_path = os.path.abspath(path)
    try:
        with _staging(full_path) as folder:
            writer = _new_writer(full_path, folder, shard_size)
            yield writer
            writer.finish()
            os.replace(_content(folder), full_path)
            sync_folder(os.path.dirname(full_path))
    except OSError as e:
        if e.errno in _NO_SPACE:
            raise UserError(f"no space left to write {path}; nothing there was changed") from e
        raise UserError(f"can't write {path}: {e.strerror or e}") from e


def _new_writer(path: str, folder: str, shard_size: int | None) -> DatasetWriter:
    content = _content(folder)
    if path.lower().endswith(".zip"):
        if shard_size:
            raise UserError(f"--shard-size makes a folder of zips; --dest={path} names a single zip")
        return DatasetWriter(lambda number: ZipSink(content), folder)
    if shard_size is None:
        return DatasetWriter(lambda number: FolderSink(content), folder)
    os.mkdir(content)
    return DatasetWriter(lambda number: ZipSink(os.path.join(content, f"{number:05d}.zip")), folder, shard_size)


def _content(folder: str) -> str:
    return os.path.join(folder, "content")


@contextlib.contextmanager
def _staging(path: str) -> Iterator[str]:
    """The empty, locked folder `.NAME.partial` beside `path`; it and parents made for it don't outlive a failure."""
    parent, name = os.path.split(path)
    made = _missing_parents(parent)
    os.makedirs(parent, exist_ok=True)
    folder = os.path.join(parent, f".{name}.partial")
    os.makedirs(folder, exist_ok=True)
    try:
        with Lock(
            os.path.join(folder, ".lock"), f"another run is writing {folder}; wait for it or choose another --dest"
        ):
            _clear(folder)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        for created in made:
            with contextlib.suppress(OSError):  # it isn't empty, so all went well
                os.rmdir(created)


def _missing_parents(path: str) -> list[str]:
    """Folders that makedirs(path) would make, the deepest first."""
    missing = []
    while not os.path.exists(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing


def _clear(folder: str) -> None:
    shutil.rmtree(os.path.join(folder, "content"), ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(folder, "content"))
