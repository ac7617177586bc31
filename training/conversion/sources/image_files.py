"""Folders and zips of image files: CelebA, official StyleGAN2-ADA zips, our own, anyone's pictures."""

import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any

from dnnlib.errors import UserError
from training.conversion.labels.kinds import in_class_order, settle_labels
from training.conversion.labels.matching import match_names
from training.conversion.labels.tables import LabelTable, read_label_table
from training.conversion.picture import EncodedPicture, FilePicture, NoPicture, Picture
from training.conversion.sources.base import ARCHIVES, Item, SourceOptions, is_clutter, unsafe_name
from training.dataset.decoding import HEADER_BYTES, peek_png
from training.dataset.folder_reader import FolderReader
from training.dataset.kinds.latents import DESCRIPTION
from training.dataset.labels import LABEL_FILE, normal_name, parse_classes, parse_label_file
from training.dataset.pictures import looks_like_picture
from training.dataset.shards import ShardReader
from training.dataset.zip_reader import BadMember, ZipReader

Reader = FolderReader | ZipReader | ShardReader
_DATASET_START = "00000/img00000000.png"  # so begin the zips that data set tools of the field write


class ImageFiles:
    """All image files of a reader in the order of their names.

    Labels come from (in this order) --folder-labels, --label-file, or the dataset.json files inside.
    """

    def __init__(self, reader: Reader, options: SourceOptions, irregular: Sequence[str] = ()):
        if options.folder_labels and options.label_file:
            raise UserError("--folder-labels and --label-file exclude each other")
        if any(reader.name(i).rsplit("/", 1)[-1] == DESCRIPTION for i in range(len(reader))):
            raise UserError(f"{reader.path} holds latents; convert the pictures that they were made of")
        self._reader = reader
        self._irregular = irregular
        self.total: int | None = len(reader) + len(irregular)
        self.channels = _channels(reader)
        self.classes: list[str] = []
        self.notes: list[str] = []
        self._labels: dict[str, int | list[float]] = {}
        if options.folder_labels:
            self._label_by_folder()
        else:
            self._label_by_table(options.label_file)

    def items(self) -> Iterator[Item]:
        """Every file but clutter and label files; those that are no pictures turn out as such when opened."""
        before = None
        for index in range(len(self._reader)):
            name = self._reader.name(index)
            if not is_clutter(name) and name.rsplit("/", 1)[-1] != LABEL_FILE:
                yield Item(name, self._labels.get(name), self._picture(index, name, name == before))
            before = name
        for name in self._irregular:
            yield Item(name, None, NoPicture("no regular file (a dead link, a link to a folder, a pipe or a device)"))

    def _picture(self, index: int, name: str, duplicate: bool) -> Picture:
        reason = "duplicate name" if duplicate else unsafe_name(name)
        if reason is None and name.lower().endswith(ARCHIVES):
            reason = "an archive or table, no picture; give it as --source by itself to convert what it holds"
        if reason:
            return NoPicture(reason)
        if isinstance(self._reader, FolderReader):
            return FilePicture(self._reader.file_path(index))
        try:
            return EncodedPicture(self._reader.read(index))
        except BadMember as e:
            return NoPicture(str(e))

    def _pictures(self) -> list[str]:
        """Names of the files that look like pictures; if none does, of all that may be some."""
        names = [self._reader.name(i) for i in range(len(self._reader))]
        names = [n for n in names if not is_clutter(n) and not unsafe_name(n) and n.rsplit("/", 1)[-1] != LABEL_FILE]
        return [name for name in names if looks_like_picture(name)] or names

    def _label_by_folder(self) -> None:
        """The classes are the top-level folders that hold pictures; where an archive wraps all in one folder (or one
        in another), those in it."""
        paths = {name: name.split("/") for name in self._pictures()}
        level = 0
        while (
            paths and len({p[level] for p in paths.values()}) == 1 and all(len(p) > level + 2 for p in paths.values())
        ):
            level += 1
        folders = {name: path[level] for name, path in paths.items() if len(path) > level + 1}
        if not folders:
            raise UserError(f"--folder-labels: {self._reader.path} has no sub-folders to take classes from")
        self.classes = in_class_order(set(folders.values()))
        numbers = {folder: number for number, folder in enumerate(self.classes)}
        self._labels = {name: numbers[folder] for name, folder in folders.items()}
        if len(folders) < len(paths):
            outside = next(name for name in paths if name not in folders)
            self.notes.append(
                f"pictures in no folder of a class: {len(paths) - len(folders)} of {len(paths)}, such as {outside}"
            )

    def _label_by_table(self, label_file: str | None) -> None:
        if label_file:
            where, table = f"--label-file={label_file}", read_label_table(label_file, len(self._reader))
            if not table.labels:
                raise UserError(f"{where} holds no labels")
        else:
            where, table = self._reader.path, self._own_table()
        self.classes = table.classes
        if table.labels:
            self._labels, self.notes = match_names(table.labels, self._pictures(), where)

    def _own_table(self) -> LabelTable:
        """What the dataset.json files say, each of the pictures in its own folder and below."""
        found: dict[str, Any] = {}
        classes: list[list[str]] = []
        for index in range(len(self._reader)):
            folder, _, base = self._reader.name(index).rpartition("/")
            if base != LABEL_FILE or is_clutter(self._reader.name(index)):
                continue
            try:
                content = self._reader.read(index)
            except BadMember as e:
                raise UserError(f"{self._reader.path}: dataset.json {e}") from e
            labels = parse_label_file(content, self._reader.path, len(self._reader))
            if labels:
                found.update({normal_name(f"{folder}/{name}"): label for name, label in labels.items()})
                classes.append(parse_classes(content))
        if any(names != classes[0] for names in classes):
            raise UserError(
                f"{self._reader.path}: its dataset.json files name different classes; convert them one by one"
            )
        return LabelTable(settle_labels(found, self._reader.path), classes[0] if classes else [])


def open_folder(path: str, options: SourceOptions) -> ImageFiles:
    """A folder of pictures."""
    reader = FolderReader(path)
    return ImageFiles(_not_empty(reader), options, reader.irregular)


def open_zip(path: str, options: SourceOptions) -> ImageFiles:
    """A zip of pictures."""
    reader = ZipReader(path)
    names = functools.partial(map, reader.name, range(len(reader)))  # one at a time: there may be millions
    if any(os.path.basename(n) == "data.mdb" for n in names()) and not any(map(looks_like_picture, names())):
        raise UserError(f"{path} holds an LMDB folder; unzip it and give the folder as --source")
    return ImageFiles(_not_empty(reader), options)


def open_shards(path: str, options: SourceOptions) -> ImageFiles:
    """A folder of zips."""
    return ImageFiles(_not_empty(ShardReader(path)), options)


def _not_empty(reader: Reader) -> Reader:
    if not len(reader):
        raise UserError(f"{reader.path} is empty; give a folder or an archive with pictures as --source")
    return reader


def _channels(reader: Reader) -> int:
    """1 for a data set that a tool of the field wrote in grey, else 3."""
    for index in range(min(len(reader), 2)):
        if reader.name(index).endswith(_DATASET_START):
            try:
                shape = peek_png(reader.head(index, HEADER_BYTES))
            except BadMember:
                return 3
            return shape.channels if shape else 3
    return 3
