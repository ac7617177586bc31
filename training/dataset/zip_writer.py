"""Writes a zip archive of stored members with the same bytes for the same input, in constant memory.

The central directory waits in a temporary file, not in memory, and every member carries the same date, so neither
the number of members nor the clock shows. Layout: APPNOTE.TXT 6.3.10; zip64 records are written where needed.
"""

import os
import shutil
import struct
import tempfile
import zlib
from typing import BinaryIO

_MAX16, _MAX32 = 0xFFFF, 0xFFFFFFFF
_DATE = (0 << 9) | (1 << 5) | 1  # 1980-01-01, the earliest that a zip archive can say
_UTF8 = 0x800
_FILE_MODE = 0o100644 << 16


class ZipWriter:
    """Appends stored members to the binary file `out`, which must stand at position 0; `close` writes the directory."""

    def __init__(self, out: BinaryIO):
        self._out = out
        self._offset = 0
        self._count = 0
        name = getattr(out, "name", None)
        folder = os.path.dirname(name) or "." if isinstance(name, str) else None  # there must be room there anyway
        self._directory = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed in close()

    def write(self, name: str, data: bytes) -> None:
        """Adds one member. A member is at most 4 GB."""
        raw_name = name.encode("utf-8")
        crc, size = zlib.crc32(data), len(data)
        if size >= _MAX32:
            raise ValueError(f"{name}: a member of {size} bytes is too large")
        common = struct.pack("<4H3L", _UTF8, 0, 0, _DATE, crc, size, size)
        wide = b"" if self._offset < _MAX32 else struct.pack("<2HQ", 1, 8, self._offset)
        version = 45 if wide else 20
        self._out.write(struct.pack("<4sH", b"PK\x03\x04", version) + common + struct.pack("<2H", len(raw_name), 0))
        self._out.write(raw_name)
        self._out.write(data)
        self._directory.write(
            struct.pack("<4s2H", b"PK\x01\x02", (3 << 8) | version, version)
            + common
            + struct.pack("<5H2L", len(raw_name), len(wide), 0, 0, 0, _FILE_MODE, min(self._offset, _MAX32))
            + raw_name
            + wide
        )
        self._offset += 30 + len(raw_name) + size
        self._count += 1

    def close(self) -> None:
        """Writes the central directory. Doesn't close `out`."""
        size, start = self._directory.tell(), self._offset
        self._directory.seek(0)
        shutil.copyfileobj(self._directory, self._out, 1 << 20)
        self._directory.close()
        if self._count >= _MAX16 or max(size, start) >= _MAX32:
            self._out.write(
                struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, self._count, self._count, size, start)
            )
            self._out.write(struct.pack("<4sLQL", b"PK\x06\x07", 0, start + size, 1))
        count = min(self._count, _MAX16)
        end = (b"PK\x05\x06", 0, 0, count, count, min(size, _MAX32), min(start, _MAX32), 0)
        self._out.write(struct.pack("<4s4H2LH", *end))
