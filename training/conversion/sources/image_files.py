"""Folders and zips of image files: CelebA, official StyleGAN2-ADA zips, our own, anyone's pictures."""

import os
from collections.abc import Iterator, Sequence

from dnnlib.errors import UserError
from training.conversion.destination import Label
from training.conversion.picture import EncodedPicture, FilePicture, NoPicture, Picture
from training.conversion.sources.base import Item, SourceOptions, is_clutter, unsafe_name
from training.conversion.sources.label_tables import LabelTable, read_label_table
from training.dataset.decoding import HEADER_BYTES, peek_png
from training.dataset.folder_reader import FolderReader
from training.dataset.labels import LABEL_FILE, parse_classes, parse_label_file
from training.dataset.shards import ShardReader
from training.dataset.zip_reader import BadMember, ZipReader

Reader = FolderReader | ZipReader | ShardReader
_DATASET_START = "00000/img00000000.png"  # so begin the zips that data set tools of the field write


class ImageFiles:
    """All image files of a reader in the order of their names.

    Labels come from (in this order) --folder-labels, --label-file, or the dataset.json inside.
    """

    def __init__(self, reader: Reader, options: SourceOptions, irregular: Sequence[str] = ()):
        if options.folder_labels and options.label_file:
            raise UserError("--folder-labels and --label-file exclude each other")
        self._reader = reader
        self._irregular = irregular
        self.total: int | None = len(reader) + len(irregular)
        self.channels = _channels(reader)
        self._table, self.classes = self._labels(options)
        self._folder_classes = {name: i for i, name in enumerate(self.classes)} if options.folder_labels else None

    def items(self) -> Iterator[Item]:
        """Every file but clutter and label files; those that are no pictures turn out as such when opened."""
        before = None
        for index in range(len(self._reader)):
            name = self._reader.name(index)
            if not is_clutter(name) and name.rsplit("/", 1)[-1] != LABEL_FILE:
                yield Item(name, self._label(name), self._picture(index, name, name == before))
            before = name
        for name in self._irregular:
            yield Item(name, None, NoPicture("no regular file (a dead link, a link to a folder, a pipe or a device)"))

    def _picture(self, index: int, name: str, duplicate: bool) -> Picture:
        reason = "duplicate name" if duplicate else unsafe_name(name)
        if reason:
            return NoPicture(reason)
        if isinstance(self._reader, FolderReader):
            return FilePicture(self._reader.file_path(index))
        try:
            return EncodedPicture(self._reader.read(index))
        except BadMember as e:
            return NoPicture(str(e))

    def _label(self, name: str) -> Label:
        if self._folder_classes is not None:
            return self._folder_classes.get(name.partition("/")[0]) if "/" in name else None
        return self._table.get(name)

    def _labels(self, options: SourceOptions) -> tuple[LabelTable, list[str]]:
        if options.folder_labels:
            return LabelTable({}), self._folder_names()
        if options.label_file:
            table = read_label_table(options.label_file)
            return table, table.classes
        return self._own_labels()

    def _folder_names(self) -> list[str]:
        names = (self._reader.name(i) for i in range(len(self._reader)))
        folders = {n.partition("/")[0] for n in names if "/" in n and not is_clutter(n) and not unsafe_name(n)}
        if not folders:
            raise UserError(f"--folder-labels: {self._reader.path} has no sub-folders to take classes from")
        return sorted(folders)

    def _own_labels(self) -> tuple[LabelTable, list[str]]:
        labels: dict[str, int | list[float]] = {}
        classes: list[str] = []
        for index in range(len(self._reader)):
            folder, _, base = self._reader.name(index).rpartition("/")
            if base != LABEL_FILE or folder.count("/") > 0:
                continue
            try:
                content = self._reader.read(index)
            except BadMember as e:
                raise UserError(f"{self._reader.path}: dataset.json {e}") from e
            found = parse_label_file(content, self._reader.path) or {}
            labels.update({(f"{folder}/" if folder else "") + name: label for name, label in found.items()})
            classes = parse_classes(content) or classes
        return LabelTable(labels), classes


def open_folder(path: str, options: SourceOptions) -> ImageFiles:
    """A folder of pictures."""
    reader = FolderReader(path)
    return ImageFiles(_not_empty(reader), options, reader.irregular)


def open_zip(path: str, options: SourceOptions) -> ImageFiles:
    """A zip of pictures."""
    reader = ZipReader(path)
    if any(os.path.basename(reader.name(i)) == "data.mdb" for i in range(len(reader))):
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
