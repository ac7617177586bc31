"""WebDataset shards, and any tar archive of pictures.

WebDataset's layout: neighbouring files whose names differ only in what follows the first dot of the last part are one
sample, `0001.jpg` the picture, `0001.cls` its class number as text (or `0001.json` with a "label").
"""

import json
import os
import tarfile
from collections.abc import Iterator

from dnnlib.errors import UserError
from training.conversion.destination import Label
from training.conversion.picture import EncodedPicture, NoPicture
from training.conversion.sources.base import Item, SourceOptions, is_clutter, unsafe_name
from training.conversion.sources.tar_access import members, open_tar, read_member
from training.dataset.folder_reader import files_with_suffix
from training.dataset.zip_reader import MEMBER_LIMIT

_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_PICTURES = ("png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm", "jp2", "avif")
_CLASS, _TABLE = "cls", "json"
_LABEL_BYTES = 1 << 20


class TarFiles:
    """Pictures of one or several tar archives, in the order of the archives' names and of the members in them."""

    channels = 3
    total: int | None = None
    classes: list[str] = []

    def __init__(self, paths: list[str]):
        self._paths = paths

    def items(self) -> Iterator[Item]:
        """One item for a sample, and one for each member that can't be used."""
        for path in self._paths:
            with open_tar(path) as tar:
                yield from self._samples(tar, os.path.basename(path))

    def _samples(self, tar: tarfile.TarFile, shard: str) -> Iterator[Item]:
        sample = _Sample("")
        for member in members(tar):
            reason = _why_not(member)
            if reason:
                yield Item(f"{shard}/{member.name}", None, NoPicture(reason))
                continue
            key, suffix = _split(member.name)
            if member.isdir() or is_clutter(member.name):
                continue
            if key != sample.key:
                yield from sample.items(shard)
                sample = _Sample(key)
            sample.add(suffix, read_member(tar, member))
        yield from sample.items(shard)


class _Sample:
    """The files of one key."""

    def __init__(self, key: str):
        self.key = key
        self._pictures: list[tuple[str, bytes]] = []
        self._label: Label = None

    def add(self, suffix: str, data: bytes) -> None:
        if suffix == _CLASS:
            self._label = _parse_class(data, self.key)
        elif suffix == _TABLE:
            label = _parse_table(data)
            self._label = label if self._label is None else self._label
        elif suffix.rsplit(".", 1)[-1] in _PICTURES:
            self._pictures.append((suffix, data))

    def items(self, shard: str) -> Iterator[Item]:
        for suffix, data in self._pictures[:1]:
            yield Item(f"{shard}/{self.key}.{suffix}", self._label, EncodedPicture(data))
        for suffix, _ in self._pictures[1:]:
            yield Item(f"{shard}/{self.key}.{suffix}", None, NoPicture("second picture of the same sample"))


def is_tar(path: str) -> bool:
    """True for names of tar archives."""
    return path.lower().endswith(_TAR_SUFFIXES)


def tar_shards(path: str) -> list[str]:
    """The tar archives in a folder, sorted."""
    return files_with_suffix(path, *_TAR_SUFFIXES)


def open_tar_file(path: str, options: SourceOptions) -> TarFiles:
    """One tar archive."""
    return TarFiles([path])


def open_tar_folder(path: str, options: SourceOptions) -> TarFiles:
    """A folder of tar archives."""
    return TarFiles(tar_shards(path))


def _why_not(member: tarfile.TarInfo) -> str | None:
    if unsafe_name(member.name):
        return unsafe_name(member.name)
    if not (member.isreg() or member.isdir()):
        return "a link or a device, not a file"
    if member.size > MEMBER_LIMIT:
        return f"has {member.size} bytes, more than {MEMBER_LIMIT}"
    return None


def _split(name: str) -> tuple[str, str]:
    """`a.b/0001.seg.png` -> (`a.b/0001`, `seg.png`)"""
    folder, _, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}/{stem}" if folder else stem, suffix.lower()


def _parse_class(data: bytes, key: str) -> int:
    try:
        return int(data)
    except ValueError as e:
        raise UserError(f"{key}.cls holds {data[:20]!r}, not a class number") from e


def _parse_table(data: bytes) -> Label:
    """A whole-number "label" in a sample's JSON; other tables of metadata are no labels."""
    if len(data) > _LABEL_BYTES:
        return None
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return None
    label = content.get("label") if isinstance(content, dict) else None
    return label if type(label) is int else None
