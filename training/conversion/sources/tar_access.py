"""Reading tar archives that may come from anywhere, sequentially and in constant memory."""

import bz2
import contextlib
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

from dnnlib.errors import UserError
from training.conversion.text import one_line
from training.dataset.zip_reader import MEMBER_LIMIT

_OPENERS: tuple[tuple[bytes, Any], ...] = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ", lzma.open))
HEADER_LIMIT = 1 << 20  # bytes of all headers of one member
DAMAGE = (
    *(tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError),
    *(RecursionError, OverflowError, MemoryError),  # tarfile calls itself for a header that stands before another
)


class _BoundedFile:
    """The part of a file that tarfile uses, with a limit to what is read while it looks for the next member.

    tarfile takes the extended headers of a member (long names, PAX records, maps of sparse files) however long they
    say they are; a few kilobytes of compressed zeros could fill the memory that way.
    """

    def __init__(self, file: IO[bytes]):
        self._file = file
        self.seek = file.seek
        self.tell = file.tell
        self._left: int | None = None

    def read(self, size: int = -1) -> bytes:
        if self._left is not None:
            self._left -= size
            if self._left < 0:
                raise tarfile.ReadError(f"a header of more than {HEADER_LIMIT} bytes")
        return self._file.read(size)

    @contextlib.contextmanager
    def reading_header(self) -> Iterator[None]:
        """The limit holds for what is read inside."""
        self._left = HEADER_LIMIT
        try:
            yield
        finally:
            self._left = None


@contextlib.contextmanager
def open_tar(path: str) -> Iterator[tarfile.TarFile]:
    """The tar archive at `path`, plain or packed by gzip, bzip2 or xz.

    Raises UserError if it is damaged, also when that shows only inside the block.
    """
    try:
        with open(path, "rb") as raw:
            start = raw.read(6)
            raw.seek(0)
            opener = next((o for magic, o in _OPENERS if start.startswith(magic)), None)
            with opener(raw) if opener else contextlib.nullcontext(raw) as content:
                bounded = _BoundedFile(content)
                with bounded.reading_header():
                    tar = tarfile.open(fileobj=cast(IO[bytes], bounded), mode="r:")  # noqa: SIM115 - closed below
                with tar:
                    yield tar
    except DAMAGE as e:
        raise UserError(f"{path} is not a readable tar archive ({one_line(e)}); download it again") from e


def members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """All members in order. tarfile would remember each (1 kB); here they are forgotten, so memory stays constant."""
    remembered = cast(Any, tar).members  # a public attribute that the type stubs leave out
    while (member := _next(tar)) is not None:
        yield member
        remembered.clear()
    _check_end(tar)


def _next(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    with cast(Any, tar).fileobj.reading_header():
        return tar.next()


def _check_end(tar: tarfile.TarFile) -> None:
    """tarfile takes a damaged header for the end of the archive; the real end is zeros or nothing."""
    file = cast(Any, tar).fileobj
    file.seek(tar.offset)
    if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError("a damaged header")


def read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The member's bytes. Raises UserError if it is no regular file or larger than MEMBER_LIMIT."""
    content = tar.extractfile(member) if member.isreg() and not member.issparse() else None
    if content is None:
        raise UserError(f"{member.name} in the tar archive is no regular file")
    if member.size > MEMBER_LIMIT:
        raise UserError(f"{member.name} in the tar archive has {member.size} bytes, more than {MEMBER_LIMIT}")
    with content:
        return cast(io.BufferedReader, content).read(member.size)
