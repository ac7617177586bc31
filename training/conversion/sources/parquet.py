"""Parquet tables with pictures, as the Hugging Face hub stores them; needs the `pyarrow` package.

A picture is an image file in a binary column, or a struct with one in its field `bytes`.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

from dnnlib.errors import UserError
from training.conversion.labels.kinds import Label
from training.conversion.picture import EncodedPicture, NoPicture, Picture
from training.conversion.sources.base import Item, SourceOptions
from training.conversion.text import one_line
from training.dataset.folder_reader import files_with_suffix

_BATCH_ROWS, _BATCH_BYTES = 32, 256 << 20
_RATIO, _FREE_BYTES = 100, 64 << 20  # pictures are packed already: a column that shrinks more is no column of pictures
_METADATA_BYTES = 16 << 20
_IMAGE_NAMES = ("image", "img", "png", "jpg", "picture")
_LABEL_NAMES = ("label", "labels", "fine_label", "class")


class Parquet:
    """The rows of one or several tables in order."""

    channels = 3

    def __init__(self, paths: list[str], options: SourceOptions):
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as e:
            raise UserError(f"{paths[0]} is a Parquet file; to read it: pip install 'styleloom[parquet]'") from e
        self._pyarrow = pyarrow
        self._paths = paths
        with self._open(paths[0]) as table:
            schema = table.schema_arrow
            self._image = self._choose(schema, options.image_column, _IMAGE_NAMES, _holds_images)
            if self._image is None:
                raise UserError(f"{paths[0]} has no column of pictures (it has {', '.join(schema.names)})")
            fits = _holds_labels if options.label_column else _holds_numbers
            self._label = self._choose(schema, options.label_column, _LABEL_NAMES, fits)
            self.classes = _class_names(schema.metadata, self._label)
        self.total: int | None = sum(self._rows(path) for path in paths)

    def items(self) -> Iterator[Item]:
        """Read some rows at a time."""
        columns = [c for c in (self._image, self._label) if c is not None]
        for path in self._paths:
            row = 0
            with self._open(path) as table:
                for batch in self._batches(table, path, columns):
                    for at in range(len(batch)):
                        values: dict[str | None, Any] = {column: batch.column(column)[at].as_py() for column in columns}
                        name = f"{os.path.basename(path)}[{row}]"
                        yield Item(name, self._row_label(values), _picture(values[self._image]))
                        row += 1

    def _batches(self, table: Any, path: str, columns: list[str]) -> Iterator[Any]:
        try:
            for group in range(table.num_row_groups):
                rows = _rows_at_once(table.metadata.row_group(group), path)
                yield from table.iter_batches(batch_size=rows, row_groups=[group], columns=columns)
        except (self._pyarrow.ArrowException, OSError) as e:
            raise _damaged(path, e) from e

    def _row_label(self, values: dict[str | None, Any]) -> Label:
        """A class number, or the numbers of a column of fractions or of lists as a vector."""
        label = values[self._label] if self._label else None
        if type(label) is float:
            return [label]
        return [float("nan") if x is None else x for x in label] if isinstance(label, list) else label

    def _open(self, path: str) -> Any:
        try:
            return self._pyarrow.parquet.ParquetFile(
                path, thrift_string_size_limit=_METADATA_BYTES, thrift_container_size_limit=1_000_000
            )
        except (self._pyarrow.ArrowException, OSError) as e:
            raise _damaged(path, e) from e

    def _rows(self, path: str) -> int:
        with self._open(path) as table:
            return table.metadata.num_rows

    def _choose(self, schema: Any, wanted: str | None, usual: tuple[str, ...], fits: Any) -> str | None:
        """The column to take: the wanted one, or one with a usual name, or the only one that fits."""
        fitting = [field.name for field in schema if fits(self._pyarrow.types, field.type)]
        if wanted is not None:
            if wanted not in fitting:
                raise UserError(f"column {wanted!r} doesn't hold that; columns that do: {', '.join(fitting) or 'none'}")
            return wanted
        named = [name for name in usual if name in fitting]
        if named or usual is _LABEL_NAMES:
            return named[0] if named else None
        return fitting[0] if len(fitting) == 1 else None


def parquet_files(path: str) -> list[str]:
    """The tables in a folder or in its sub-folder `data`, sorted."""
    inner = os.path.join(path, "data")
    found = files_with_suffix(path, ".parquet")
    return found or (files_with_suffix(inner, ".parquet") if os.path.isdir(inner) else [])


def open_parquet_file(path: str, options: SourceOptions) -> Parquet:
    """One table."""
    return Parquet([path], options)


def open_parquet_folder(path: str, options: SourceOptions) -> Parquet:
    """A folder of tables; with --split only those whose names start with it."""
    files = parquet_files(path)
    if options.split:
        files = [f for f in files if os.path.basename(f).startswith(options.split)]
        if not files:
            raise UserError(f"--split={options.split}: no table in {path} has a name that starts so")
    return Parquet(files, options)


def _rows_at_once(group: Any, path: str) -> int:
    """How many rows of a row group to unpack at a time. One value may be as large as all of its column are in the
    file, and stand in every row (a dictionary)."""
    packed = sum(group.column(i).total_compressed_size for i in range(group.num_columns))
    unpacked = max(group.column(i).total_uncompressed_size for i in range(group.num_columns))
    if unpacked > max(_FREE_BYTES, _RATIO * packed):
        raise UserError(f"{path}: {packed} bytes unpack to {unpacked}, which no pictures do; it is not read")
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(unpacked, 1)))


def _holds_images(types: Any, kind: Any) -> bool:
    if types.is_struct(kind):
        return any(field.name == "bytes" and _holds_images(types, field.type) for field in kind)
    return types.is_binary(kind) or types.is_large_binary(kind)


def _holds_numbers(types: Any, kind: Any) -> bool:
    return types.is_integer(kind) or types.is_floating(kind)


def _holds_labels(types: Any, kind: Any) -> bool:
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        kind = kind.value_type
    return _holds_numbers(types, kind)


def _picture(value: Any) -> Picture:
    data = value.get("bytes") if isinstance(value, dict) else value
    return EncodedPicture(data) if data is not None else NoPicture("the row has no picture, only a path or nothing")


def _class_names(metadata: dict[bytes, bytes] | None, label: str | None) -> list[str]:
    """Class names from the description that Hugging Face's `datasets` leaves in the table."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[label]["names"]]
    except (KeyError, TypeError, ValueError, RecursionError):
        return []


def _damaged(path: str, error: Exception) -> UserError:
    return UserError(f"{path} is no readable Parquet file ({one_line(error)}); download it again")
