"""All sources of pictures, and the finding of the one that a path is.

A new source: a module with a class that is a `Source` (base.py), and one row in `_KINDS`; from outside, a call of
`register_source` in a file given by `--import`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, fields

from dnnlib.errors import UserError
from dnnlib.hub import fetch_tables, is_hub
from training.conversion.sources import cifar, image_files, lsun, mnist, parquet, stl10, tar_files
from training.conversion.sources.base import Item, Source, SourceOptions, notes_of
from training.conversion.sources.tar_access import members, open_tar
from training.conversion.text import one_line
from training.dataset.folder_reader import holds_pictures
from training.dataset.shards import ShardReader

__all__ = ["Item", "Source", "SourceOptions", "notes_of", "open_source", "register_source"]


@dataclass(frozen=True)
class _Kind:
    """A kind of source: how to know one, how to open it, which fields of SourceOptions mean something to it."""

    name: str
    matches: Callable[[str], bool]
    open: Callable[[str, SourceOptions], Source]
    takes: tuple[str, ...] = ()


def _file(matches: Callable[[str], bool]) -> Callable[[str], bool]:
    return lambda path: os.path.isfile(path) and matches(path)


def _folder(matches: Callable[[str], bool]) -> Callable[[str], bool]:
    """True for a folder that matches and holds no picture: an archive that lies among pictures isn't what is meant."""
    return lambda path: os.path.isdir(path) and matches(path) and not holds_pictures(path)


def _suffix(suffix: str) -> Callable[[str], bool]:
    return _file(lambda path: path.lower().endswith(suffix))


def _tar_of(matches: Callable[[str], bool]) -> Callable[[str], bool]:
    """True for a tar archive whose first member's name matches."""

    def check(path: str) -> bool:
        if not tar_files.is_tar(path):
            return False
        with open_tar(path) as tar:
            names = (member.name for member in members(tar))
            first = next((name for name in names if name.strip("./")), None)  # `tar -c .` begins with the folder itself
        return first is not None and matches(first)

    return _file(check)


_LABELS = ("folder_labels", "label_file")
_COLUMNS = ("image_column", "label_column")
_KINDS = (
    _Kind("zip", _suffix(".zip"), image_files.open_zip, _LABELS),
    _Kind("CIFAR tar", _tar_of(cifar.is_cifar), cifar.open_cifar_tar, ("split",)),
    _Kind("STL-10 tar", _tar_of(stl10.is_stl10), stl10.open_stl10, ("split",)),
    _Kind("tar", _file(tar_files.is_tar), tar_files.open_tar_file),
    _Kind("Parquet table", _suffix(".parquet"), parquet.open_parquet_file, _COLUMNS),
    _Kind("idx file", _file(mnist.is_idx), mnist.open_idx),
    _Kind("LMDB", _folder(lsun.is_lmdb_folder), lsun.open_lmdb),
    _Kind("CIFAR folder", _folder(cifar.is_cifar_folder), cifar.open_cifar_folder, ("split",)),
    _Kind("STL-10 folder", _folder(stl10.is_stl10_folder), stl10.open_stl10, ("split",)),
    _Kind("MNIST folder", _folder(mnist.is_mnist_folder), mnist.open_mnist_folder, ("split",)),
    _Kind("tar shards", _folder(lambda p: bool(tar_files.tar_shards(p))), tar_files.open_tar_folder),
    _Kind(
        "Parquet tables",
        _folder(lambda p: bool(parquet.parquet_files(p))),
        parquet.open_parquet_folder,
        ("split", *_COLUMNS),
    ),
    _Kind("folder of zips", _folder(ShardReader.is_sharded), image_files.open_shards, _LABELS),
    _Kind("folder", os.path.isdir, image_files.open_folder, _LABELS),
)


_own_kinds: list[_Kind] = []


def register_source(
    name: str,  # for messages
    matches: Callable[[str], bool],  # whether a path (file or folder) is such a source
    open: Callable[[str, SourceOptions], Source],
    takes: tuple[str, ...] = (),  # fields of SourceOptions that mean something to it
) -> None:
    """Makes a kind of source known. It is asked before the built-in kinds, in order of registration; a name may be
    given once only."""
    if any(kind.name == name for kind in (*_own_kinds, *_KINDS)):
        raise ValueError(f"two kinds of source register the name {name!r}")
    _own_kinds.append(_Kind(name, matches, open, takes))


def open_source(path: str, options: SourceOptions | None = None) -> Source:
    """The source at `path`, recognised by content and name; hf://owner/name is a data set of the Hugging Face Hub.

    Raises UserError if there is none, it is damaged, or an option is given that means nothing to it.
    """
    options = options or SourceOptions()
    try:
        return _open(str(fetch_tables(path)) if is_hub(path) else path, options)
    except OSError as e:
        raise UserError(f"can't read --source={path}: {e.strerror or one_line(e)}") from e


def _open(path: str, options: SourceOptions) -> Source:
    if not os.path.exists(path):
        raise UserError(f"--source={path} doesn't exist; give a folder, an archive or a data set file")
    kind = next((k for k in (*_own_kinds, *_KINDS) if k.matches(path)), None)
    if kind is None:
        raise UserError(
            f"--source={path} is none of: folder or zip of pictures, CIFAR/STL-10/WebDataset tar, idx file, LMDB "
            "folder, Parquet; for single pictures give the folder they are in"
        )
    for field in fields(options):
        if getattr(options, field.name) is not None and field.name not in kind.takes:
            raise UserError(f"--{field.name.replace('_', '-')} means nothing for a source of the kind {kind.name!r}")
    return kind.open(path, options)
