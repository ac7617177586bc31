"""WebDataset shards, and any tar archive of pictures.

WebDataset's layout: neighbouring files whose names differ only in what follows the first dot of the last part are one
sample, `0001.jpg` the picture, `0001.cls` its class number as text (or `0001.json` with a "label"). Numbers behind
that dot belong to the name (`frame.0001.png`), and pictures with nothing but pictures beside them are one each.
"""

import json
import os
import tarfile
from collections.abc import Iterator

from dnnlib.errors import UserError
from training.conversion.labels.kinds import Label
from training.conversion.picture import EncodedPicture, NoPicture
from training.conversion.sources.base import Item, SourceOptions, is_clutter, unsafe_name
from training.conversion.sources.tar_access import members, open_tar, read_member
from training.conversion.text import printable
from training.dataset.folder_reader import files_with_suffix
from training.dataset.pictures import looks_like_picture
from training.dataset.zip_reader import MEMBER_LIMIT

_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_CLASS, _TABLE = "cls", "json"
_LABEL_BYTES = 1 << 20
_HELD_PICTURES, _HELD_BYTES = 8, 64 << 20  # of one sample; with more pictures it is none


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
        sample = _Sample("", shard)
        for member in members(tar):
            reason = _why_not(member)
            if reason:
                yield Item(f"{shard}/{member.name}", None, NoPicture(reason))
                continue
            key, suffix = _split(member.name)
            if member.isdir() or is_clutter(member.name):
                continue
            if key != sample.key:
                yield from sample.finish()
                sample = _Sample(key, shard)
            if suffix in (_CLASS, _TABLE):
                sample.add_label(suffix, read_member(tar, member) if member.size <= _LABEL_BYTES else b"")
            elif looks_like_picture(f"x.{suffix}"):
                yield from sample.add_picture(suffix, read_member(tar, member))
            else:
                sample.has_others = True
        yield from sample.finish()


class _Sample:
    """The files of one key. Pictures wait in it until it is known whether it is a sample of WebDataset: then the one
    of the shortest suffix is the picture, and the others (masks, depths...) are left out."""

    def __init__(self, key: str, shard: str):
        self.key = key
        self.has_others = False  # files that are no pictures
        self._name = f"{shard}/{key}"
        self._held: dict[str, bytes] = {}  # suffix -> picture
        self._is_none = False
        self._label: Label = None

    def add_label(self, suffix: str, data: bytes) -> None:
        """A .cls goes before a .json."""
        self.has_others = True
        if suffix == _CLASS:
            self._label = _parse_class(data, self.key)
        elif self._label is None:
            self._label = _parse_table(data)

    def add_picture(self, suffix: str, data: bytes) -> Iterator[Item]:
        """The items that are certain now."""
        if suffix in self._held:
            yield self._left_out(suffix, "duplicate name")
            return
        self._held[suffix] = data
        total = sum(map(len, self._held.values()))
        if not self.has_others and (len(self._held) > _HELD_PICTURES or total > _HELD_BYTES):
            self._is_none = True
        if self._is_none:
            yield from self._pictures()
            self._held = dict.fromkeys(self._held, b"")  # only the names, for duplicates
        elif total > MEMBER_LIMIT:
            raise UserError(f"{printable(self._name)} has more than {MEMBER_LIMIT} bytes of pictures; it is no sample")

    def finish(self) -> Iterator[Item]:
        """The items that are left when all files of the key were seen."""
        if self._is_none or not self.has_others:
            yield from self._pictures()
            return
        for rank, suffix in enumerate(sorted(self._held, key=len)):
            if rank == 0:
                yield Item(f"{self._name}.{suffix}", self._label, EncodedPicture(self._held[suffix]))
            else:
                yield self._left_out(suffix, "another picture of the same sample")

    def _pictures(self) -> Iterator[Item]:
        for suffix, data in self._held.items():
            if data:
                yield Item(f"{self._name}.{suffix}", None, EncodedPicture(data))

    def _left_out(self, suffix: str, reason: str) -> Item:
        return Item(f"{self._name}.{suffix}", None, NoPicture(reason))


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
    if member.issparse():
        return "a sparse file: a few bytes that unpack to any number"
    if member.size > MEMBER_LIMIT:
        return f"has {member.size} bytes, more than {MEMBER_LIMIT}"
    return None


def _split(name: str) -> tuple[str, str]:
    """`a.b/0001.seg.png` -> (`a.b/0001`, `seg.png`); `a.b/frame.0001.png` -> (`a.b/frame.0001`, `png`)"""
    folder, _, base = name.rpartition("/")
    parts = base.split(".")
    length = 1
    while length < len(parts) - 1 and parts[length].isdecimal():
        length += 1
    stem, suffix = ".".join(parts[:length]), ".".join(parts[length:])
    return f"{folder}/{stem}" if folder else stem, suffix.lower()


def _parse_class(data: bytes, key: str) -> int:
    try:
        return int(data)
    except ValueError as e:
        raise UserError(f"{key}.cls holds {data[:20]!r}, not a class number") from e


def _parse_table(data: bytes) -> Label:
    """The "label" in a sample's JSON, if it is a class or a number; other metadata are no labels."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return None
    label = content.get("label") if isinstance(content, dict) else None
    if type(label) is float:
        return [label]
    return label if type(label) is int else None
