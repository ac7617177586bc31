"""LSUN: an LMDB folder whose values are image files (https://www.yf.io/p/lsun); needs the `lmdb` package."""

import os
from collections.abc import Iterator
from typing import Any

from dnnlib.errors import UserError
from training.conversion.picture import EncodedPicture, NoPicture
from training.conversion.sources.base import Item, SourceOptions
from training.conversion.text import one_line
from training.dataset.zip_reader import MEMBER_LIMIT


class Lsun:
    """All pictures in the order of their keys."""

    channels = 3
    classes: list[str] = []

    def __init__(self, path: str):
        try:
            import lmdb
        except ImportError as e:
            raise UserError(f"{path} is an LMDB folder; to read it: pip install 'styleloom[lmdb]'") from e
        self._path = path
        self._lmdb = lmdb
        try:
            with self._open() as database:
                self.total: int | None = database.stat()["entries"]
                self._check_size(database.info()["last_pgno"] + 1, database.stat()["psize"])
        except lmdb.Error as e:
            raise self._damaged(e) from e

    def items(self) -> Iterator[Item]:
        """Read by the database's cursor."""
        try:
            with self._open() as database, database.begin(buffers=True) as transaction:
                for key, value in transaction.cursor():
                    name = bytes(key).decode("utf-8", errors="replace")
                    large = len(value) > MEMBER_LIMIT
                    yield Item(name, None, NoPicture("too large") if large else EncodedPicture(bytes(value)))
        except self._lmdb.Error as e:
            raise self._damaged(e) from e

    def _check_size(self, pages: int, page_size: int) -> None:
        """The database is mapped into memory; to read beyond the end of a truncated file would kill the process."""
        size = os.path.getsize(os.path.join(self._path, "data.mdb"))
        if size < pages * page_size:
            raise UserError(f"{self._path}/data.mdb has {size} of {pages * page_size} bytes; download it again")

    def _open(self) -> Any:
        return self._lmdb.open(self._path, readonly=True, lock=False, readahead=False, meminit=False)

    def _damaged(self, error: Exception) -> UserError:
        return UserError(f"{self._path} is no readable LMDB folder ({one_line(error)}); download it again")


def is_lmdb_folder(path: str) -> bool:
    """True if the folder is an LMDB database."""
    return os.path.isfile(os.path.join(path, "data.mdb"))


def open_lmdb(path: str, options: SourceOptions) -> Lsun:
    """The folder that holds data.mdb."""
    return Lsun(path)
