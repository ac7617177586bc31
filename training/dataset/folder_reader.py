"""A folder seen as `ZipReader` sees an archive: sorted relative names, bytes by index."""

import os
import zlib
from collections.abc import Iterator

from dnnlib.errors import UserError
from training.dataset.zip_reader import MEMBER_LIMIT, BadMember


class FolderReader:
    """Regular files below the folder `path`, sorted by relative name with forward slashes.

    Links to files are followed, links to folders are not, so no loop of links can catch it. Raises UserError if the
    folder can't be listed. `irregular` names what is no file: dead links, links to folders, pipes, devices.
    """

    def __init__(self, path: str):
        self.path = path
        try:
            found = sorted(_walk(path, ""))
        except OSError as e:
            raise UserError(f"can't list {path}: {e.strerror}") from e
        self._names = [name for name, regular in found if regular]
        self.irregular = [name for name, regular in found if not regular]

    def __len__(self) -> int:
        return len(self._names)

    def close(self) -> None:
        """Nothing is open."""

    def names(self) -> list[str]:
        """All file names in order."""
        return self._names

    def name(self, index: int) -> str:
        """The file's name relative to the folder."""
        return self._names[index]

    def file_path(self, index: int) -> str:
        """Where the file lies."""
        return os.path.join(self.path, *self._names[index].split("/"))

    def crc(self, index: int) -> int:
        """CRC-32 of the file, which is read for it."""
        return zlib.crc32(self.read(index))

    def read(self, index: int, limit: int = MEMBER_LIMIT) -> bytes:
        """The file's bytes. Raises BadMember if it can't be read or has more than `limit` bytes."""
        return read_file(self.file_path(index), limit)

    def head(self, index: int, count: int) -> bytes:
        """The first `count` bytes, or all if there are fewer."""
        try:
            with open(self.file_path(index), "rb") as f:
                return f.read(count)
        except OSError as e:
            raise BadMember(f"can't be read: {e.strerror}") from e


def read_file(path: str, limit: int = MEMBER_LIMIT) -> bytes:
    """The bytes of a file. Raises BadMember if it can't be read or has more than `limit` bytes."""
    try:
        with open(path, "rb") as f:
            data = f.read(limit + 1)
    except OSError as e:
        raise BadMember(f"can't be read: {e.strerror}") from e
    if len(data) > limit:
        raise BadMember(f"has more than {limit} bytes")
    return data


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, bool]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name, _is_regular(entry)


def _is_regular(entry: os.DirEntry[str]) -> bool:
    """False for pipes, devices, and links that lead nowhere, in circles, or to folders."""
    try:
        return entry.is_file()
    except OSError:
        return False
