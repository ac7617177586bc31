"""Writing and reading files so that nothing is half written, no link is followed, and every failure is one line.

The one place for it: network files, states, options, grids, reports, cards and exports are written by `atomic_file`,
logs grow by `append`, and JSON from a folder that may be a stranger's is read by `read_json`.
"""

import contextlib
import io
import json
import mmap
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from dnnlib.errors import UserError

PART = ".part"  # temporary files are called `.NAME.<random>.part`
MAX_JSON = 16 * 2**20  # bytes of a JSON file, or of one line of a .jsonl file
MAX_LINES_FILE = 64 * 2**20  # bytes of a .jsonl file
MAX_LINES = 1_000_000  # of it
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)  # Windows has neither of the two
_NO_WAITING = getattr(os, "O_NONBLOCK", 0)  # opening a named pipe would wait for its other end

StrPath = str | os.PathLike[str]


class WriteError(UserError):
    """A file can't be written: no space, no permission, no folder."""

    def __init__(self, path: StrPath, cause: OSError | str) -> None:
        reason = cause if isinstance(cause, str) else cause.strerror or str(cause)
        super().__init__(f"cannot write {path}: {reason}")


class _Output(io.FileIO):
    """A file that remembers the first write that failed, whatever its caller makes of the exception."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return _write(self, data)
        except OSError as e:
            self.failure = self.failure or e
            raise


_write = io.FileIO.write  # the one place where content leaves for the disk


@contextlib.contextmanager
def atomic_file(path: StrPath, durable: bool = True) -> Iterator[BinaryIO]:
    """A file to write that takes the name `path` when the block ends well; until then the old content stays.

    A link called `path` is replaced, not followed. With `durable` the data reach the disk before the name changes, so
    that a power cut, too, leaves the old or the new file whole; without, only the end of the process is provided for.
    Raises WriteError if anything can't be written, also where a library has made something else of that failure.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}{PART}")
    try:
        raw = _Output(temporary, "xb")
    except OSError as e:
        raise WriteError(path, e) from e
    file = io.BufferedWriter(raw, 1 << 20)
    try:
        yield file
        _put_in_place(file, temporary, path, durable)
    except BaseException as e:
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if raw.failure is not None and isinstance(e, Exception):
            raise WriteError(path, raw.failure) from e
        raise


@contextlib.contextmanager
def atomic_path(path: StrPath) -> Iterator[Path]:
    """A path for a library that opens its files itself; what lies there takes the name `path` when the block ends well.

    It is in a new folder of its own beside `path`, under the same name. Raises WriteError as `atomic_file` does, and
    leaves alone what the block raises.
    """
    path = Path(path)
    folder = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}{PART}")
    try:
        folder.mkdir()
    except OSError as e:
        raise WriteError(path, e) from e
    try:
        yield folder / path.name
        try:
            with open(folder / path.name, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(folder / path.name, path)
            sync_folder(path.parent)
        except OSError as e:
            raise WriteError(path, e) from e
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(file: BinaryIO, temporary: Path, path: Path, durable: bool) -> None:
    try:
        file.flush()
        if durable:
            os.fsync(file.fileno())
        file.close()
        os.replace(temporary, path)
        if durable:
            sync_folder(path.parent)
    except OSError as e:
        raise WriteError(path, e) from e


def sync_folder(folder: StrPath) -> None:
    """Makes a rename in the folder last; Windows can't open folders and needs no such call."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_file(path: StrPath, data: bytes, durable: bool = True) -> None:
    """`data` as the file `path`, atomically. Raises WriteError."""
    with atomic_file(path, durable) as file:
        file.write(data)


def append(path: StrPath, text: str) -> None:
    """Adds text to the end of a file, whole or not at all. Raises WriteError, also if `path` is a link."""
    with _own_file(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as handle:
        size = os.fstat(handle).st_size
        data = memoryview(text.encode())
        try:
            while data:
                data = data[os.write(handle, data) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, size)
            raise


def cut(path: StrPath, size: int) -> None:
    """Shortens a file to `size` bytes, unless it is no longer. Raises WriteError, also if `path` is a link."""
    with _own_file(path, os.O_WRONLY) as handle:
        if os.fstat(handle).st_size > size:
            os.ftruncate(handle, size)


@contextlib.contextmanager
def _own_file(path: StrPath, flags: int) -> Iterator[int]:
    """A handle of a plain file with one name. Whoever else can name it, by a link of either kind, might not want it
    changed."""
    try:
        handle = os.open(path, flags | _NO_LINKS | _NO_WAITING, 0o666)
        try:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
                raise WriteError(path, "it is no plain file with a single name")
            yield handle
        finally:
            os.close(handle)
    except OSError as e:
        raise WriteError(path, "it is a link" if os.path.islink(path) else e) from e


def read_bytes(path: StrPath, most: int = MAX_JSON) -> bytes:
    """A whole plain file. Raises UserError if it is something else, can't be read, or has more than `most` bytes;
    FileNotFoundError if it isn't there."""
    with _plain_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise UserError(f"{path} has {size:,} bytes, more than the {most:,} that are read")
        return file.read(most)


def map_file(path: StrPath) -> mmap.mmap:
    """The bytes of a plain file, mapped rather than read, private to this process when they are changed.

    Raises UserError if the file is something else, is empty or can't be read; FileNotFoundError if it isn't there.
    """
    with _plain_file(path) as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise UserError(f"{path} is empty")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


@contextlib.contextmanager
def _plain_file(path: StrPath) -> Iterator[BinaryIO]:
    try:
        handle = os.open(path, os.O_RDONLY | _NO_WAITING | getattr(os, "O_BINARY", 0))
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise UserError(f"{path} is no plain file")
            yield file
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as e:  # ValueError: a name with a NUL in it
        raise UserError(f"cannot read {path}: {getattr(e, 'strerror', None) or e}") from e


def read_json(path: StrPath, most: int = MAX_JSON) -> Any:
    """The value in a JSON file. Raises UserError whatever is wrong with it; FileNotFoundError if it isn't there."""
    try:
        return json.loads(read_bytes(path, most))
    except (ValueError, RecursionError) as e:  # not UTF-8, no JSON, numbers without end, nested without end
        raise UserError(f"{path} is no JSON that can be read: {' '.join(str(e).split())[:120]}") from e


def read_jsonl(path: StrPath) -> list[dict[str, Any]]:
    """The tables in a .jsonl file, one a line; lines that are damaged, as a crash leaves the last one, are left out.

    [] if there is no file, or none that can be read.
    """
    try:
        data = read_bytes(path, MAX_LINES_FILE)
    except (FileNotFoundError, UserError):
        return []
    found = []
    for line in data.split(b"\n")[:MAX_LINES]:
        try:
            value = json.loads(line) if len(line) <= MAX_JSON else None
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            found.append(value)
    return found
