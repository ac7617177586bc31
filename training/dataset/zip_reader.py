"""Random access to the members of a zip archive that may come from anywhere.

Python's `zipfile` keeps about 700 bytes of objects for every member and trusts the sizes it reads. Data sets have
hundreds of thousands of members, so this reader keeps the central directory as the bytes it is (about 80 a member),
checks every size against the file, and reads by position, so threads and forked processes can share it.
Layout: APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.14 to 4.3.16 (its end).
"""

import os
import struct
import threading
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from dnnlib.errors import UserError

STORED, DEFLATED = 0, 8
MEMBER_LIMIT = 256 << 20  # bytes; no picture, and no label file of a data set, is larger

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX16, _MAX32 = 0xFFFF, 0xFFFFFFFF


class BadMember(Exception):
    """One member can't be read; the others may be fine. The message is the reason."""


class Member(NamedTuple):
    """What the central directory says of one member."""

    name: str
    flags: int
    method: int
    crc: int
    packed_size: int  # bytes in the archive
    size: int  # bytes after unpacking
    offset: int  # of the local header


class ZipReader:
    """Members of the zip file at `path`, sorted by name; directories are left out.

    Raises UserError if the file is no zip archive, is damaged, or has members that overlap (a zip bomb).
    """

    def __init__(self, path: str):
        self.path = path
        self._lock = threading.Lock()
        try:
            self._file = open(path, "rb")  # noqa: SIM115 - stays open for random access
        except OSError as e:
            raise UserError(f"can't open {path}: {e.strerror}") from e
        try:
            self._file_size = os.fstat(self._file.fileno()).st_size
            self._directory, count = self._read_directory()
            self._entries = self._scan(count)
        except (BadMember, struct.error, OSError) as e:
            self._file.close()
            raise UserError(f"{path} is not a readable zip file ({e}); make it again or download it again") from e

    def __len__(self) -> int:
        return len(self._entries)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    def close(self) -> None:
        """Closes the file; reading afterwards is an error."""
        self._file.close()

    def names(self) -> list[str]:
        """All member names in order."""
        return [self.name(i) for i in range(len(self))]

    def name(self, index: int) -> str:
        """The member's name, with forward slashes."""
        return self._member_at(self._entries[index]).name

    def crc(self, index: int) -> int:
        """CRC-32 of the unpacked member as the archive states it; `read` verifies it."""
        return self.member(index).crc

    def member(self, index: int) -> Member:
        """The central directory's entry."""
        return self._member_at(self._entries[index])

    def read(self, index: int, limit: int = MEMBER_LIMIT) -> bytes:
        """The whole unpacked member. Raises BadMember if it is damaged, encrypted or larger than `limit` bytes."""
        member = self.member(index)
        if member.size > limit or member.packed_size > limit:
            raise BadMember(f"unpacks to {max(member.size, member.packed_size)} bytes, more than {limit}")
        data = _unpack(member, self._packed(member, member.packed_size))
        if len(data) != member.size or zlib.crc32(data) != member.crc:
            raise BadMember("damaged: size or checksum is wrong")
        return data

    def head(self, index: int, count: int) -> bytes:
        """At least the first `count` bytes of the member, or all of it if it is packed or shorter."""
        member = self.member(index)
        if member.method == STORED:
            return self._packed(member, min(count, member.packed_size))
        return self.read(index)

    def _packed(self, member: Member, count: int) -> bytes:
        if member.flags & 1:
            raise BadMember("encrypted")
        head = self._read_at(member.offset, _LOCAL.size)
        signature, *_, name_size, extra_size = _LOCAL.unpack(head)
        if signature != b"PK\x03\x04":
            raise BadMember("damaged: no local header")
        return self._read_at(member.offset + _LOCAL.size + name_size + extra_size, count)

    def _read_at(self, offset: int, count: int) -> bytes:
        if offset < 0 or offset + count > self._file_size:
            raise BadMember("damaged: lies beyond the end of the archive")
        if hasattr(os, "pread"):  # forked processes share the file position, so don't use it
            data = self._pread(count, offset)
        else:
            with self._lock:
                self._file.seek(offset)
                data = self._file.read(count)
        if len(data) != count:
            raise BadMember("damaged: shorter than it says")
        return data

    def _pread(self, count: int, offset: int) -> bytes:
        try:
            return os.pread(self._file.fileno(), count, offset)
        except OSError as e:
            raise BadMember(f"can't be read: {e.strerror}") from e

    def _read_directory(self) -> tuple[bytes, int]:
        """-> the central directory's bytes, the number of entries it claims."""
        tail_size = min(self._file_size, _END.size + _MAX16)
        tail = self._read_at(self._file_size - tail_size, tail_size)
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or at + _END.size > len(tail):
            raise BadMember("it has no zip directory")
        _, _, _, _, count, size, offset, _ = _END.unpack_from(tail, at)
        if count == _MAX16 or size == _MAX32 or offset == _MAX32:
            count, size, offset = self._read_end64(self._file_size - tail_size + at, (count, size, offset))
        if count * _CENTRAL.size > size:
            raise BadMember("its directory is shorter than its number of members")
        return self._read_at(offset, size), count

    def _read_end64(self, end: int, plain: tuple[int, int, int]) -> tuple[int, int, int]:
        """The zip64 end record in front of the plain one at `end`, if there is one (4.3.14, 4.3.15)."""
        at = end - _END64_LOCATOR.size
        if at < 0:
            return plain
        signature, _, offset, _ = _END64_LOCATOR.unpack(self._read_at(at, _END64_LOCATOR.size))
        if signature != b"PK\x06\x07":
            return plain
        record = _END64.unpack(self._read_at(offset, _END64.size))
        if record[0] != b"PK\x06\x06":
            raise BadMember("its zip64 directory is damaged")
        return record[7], record[8], record[9]

    def _scan(self, count: int) -> np.ndarray:
        """-> positions of the members' entries in the directory, sorted by member name, int64 [N]."""
        entries, extents = np.zeros(count, np.int64), np.zeros((count, 2), np.int64)
        found, before, in_order = 0, "", True
        for index, at in enumerate(self._walk(count)):
            member = self._member_at(at)
            if max(member.offset, member.packed_size) > self._file_size:
                raise BadMember("a member lies beyond the end of the archive")
            extents[index] = member.offset, member.offset + _LOCAL.size + member.packed_size
            if not member.name.endswith("/"):
                entries[found] = at
                found += 1
                in_order = in_order and before <= member.name
                before = member.name
        extents = extents[np.argsort(extents[:, 0], kind="stable")]
        if (extents[1:, 0] < extents[:-1, 1]).any():
            raise BadMember("its members overlap, as in a zip bomb")
        entries = entries[:found]
        if in_order:  # as data set tools write them; sorting would need all names in memory
            return entries
        return np.array(sorted(entries.tolist(), key=lambda at: self._member_at(at).name), np.int64)

    def _walk(self, count: int) -> Iterator[int]:
        at = 0
        for _ in range(count):
            if self._directory[at : at + 4] != b"PK\x01\x02":
                raise BadMember("its directory is damaged")
            yield at
            name_size, extra_size, comment_size = struct.unpack_from("<3H", self._directory, at + 28)
            at += _CENTRAL.size + name_size + extra_size + comment_size

    def _member_at(self, at: int) -> Member:
        fields = _CENTRAL.unpack_from(self._directory, at)
        flags, method, crc = fields[3], fields[4], fields[7]
        packed_size, size, offset = fields[8], fields[9], fields[16]
        name_size, extra_size = fields[10], fields[11]
        start = at + _CENTRAL.size
        raw_name = self._directory[start : start + name_size]
        if _MAX32 in (packed_size, size, offset):
            extra = self._directory[start + name_size : start + name_size + extra_size]
            size, packed_size, offset = _zip64_fields(extra, size, packed_size, offset)
        name = _decoded(raw_name, is_utf8=bool(flags & 0x800)).replace("\\", "/")
        return Member(name, flags, method, crc, packed_size, size, offset)


def _decoded(raw: bytes, is_utf8: bool) -> str:
    """Many programs write UTF-8 without saying so (4.4.4, bit 11), and other text is hardly ever valid UTF-8."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("utf-8" if is_utf8 else "cp437", errors="replace")


def _zip64_fields(extra: bytes, *values: int) -> list[int]:
    """Replaces each of `values` (size, packed size, offset) that reads 0xFFFFFFFF by its 64-bit form (4.5.3)."""
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<2H", extra, at)
        if tag == 1:
            wide = iter(struct.unpack_from(f"<{length // 8}Q", extra, at + 4))
            return [next(wide, v) if v == _MAX32 else v for v in values]
        at += 4 + length
    return list(values)


def _unpack(member: Member, packed: bytes) -> bytes:
    if member.method == STORED:
        return packed
    if member.method != DEFLATED:
        raise BadMember(f"packed by method {member.method}; only stored and deflated members can be read")
    try:
        # One byte more than stated shows that the statement was a lie without unpacking all of it.
        return zlib.decompressobj(-15).decompress(packed, member.size + 1)
    except zlib.error as e:
        raise BadMember(f"damaged: {e}") from e
