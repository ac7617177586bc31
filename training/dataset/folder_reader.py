"""A folder seen as `ZipReader` sees an archive: sorted relative names, bytes by index."""

import os
import zlib

from dnnlib.errors import UserError
from training.dataset.pictures import looks_like_picture
from training.dataset.zip_reader import MEMBER_LIMIT, BadMember


class FolderReader:
    """Regular files below the folder `path`, sorted by relative name with forward slashes.

    Links to files are followed, links to folders are not, so no loop of links can catch it. Raises UserError if the
    folder can't be listed. `irregular` names what is no file: dead links, links to folders, pipes, devices.
    """

    def __init__(self, path: str):
        self.path = path
        self._names: list[str] = []
        self.irregular: list[str] = []
        try:
            self._scan(path)
        except OSError as e:
            raise UserError(f"can't list {path}: {e.strerror}") from e
        self._names.sort()
        self.irregular.sort()

    def _scan(self, path: str) -> None:
        pending = [(path, "")]  # not recursive: folders can be nested deeper than Python's stack
        while pending:
            folder, prefix = pending.pop()
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append((entry.path, f"{prefix}{entry.name}/"))
                    else:
                        (self._names if _is_regular(entry) else self.irregular).append(prefix + entry.name)

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


def files_with_suffix(folder: str, *suffixes: str) -> list[str]:
    """Paths of the files right in `folder` whose names end so (case doesn't matter), sorted; hidden ones left out."""
    with os.scandir(folder) as entries:  # unlike glob and listdir it doesn't gather all names first
        found = [e.path for e in entries if e.name.lower().endswith(suffixes) and e.name[0] != "." and _is_regular(e)]
    return sorted(found)


def holds_pictures(folder: str) -> bool:
    """True if a file somewhere below `folder` is named like a picture (hidden files and folders aside)."""
    pending = [folder]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif looks_like_picture(entry.name):
                    return True
    return False


def _is_regular(entry: os.DirEntry[str]) -> bool:
    """False for pipes, devices, and links that lead nowhere, in circles, or to folders."""
    try:
        return entry.is_file()
    except OSError:
        return False
