"""Writes a pickle piece by piece, so that large buffers are aligned in the file and need no copy when it is mapped.

Opcodes: CPython's `pickletools`, protocol 3 (the newest without frames, whose headers would shift the buffers).
"""

import pickle
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

ALIGNMENT = 64  # bytes
_FIRST_BUFFER = 1 << 16  # memo indices from here on belong to buffers; `plain` uses those below, anew at each call


class PickleWriter:
    """Puts values on the unpickler's stack, one after another; containers and calls are begun and ended."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.position = 0
        self.buffers: dict[bytes, int] = {}  # identity -> memo index
        self._write(b"\x80\x03")

    def _write(self, data: bytes | memoryview) -> None:
        self.file.write(data)
        self.position += len(data)

    def plain(self, *values: Any) -> None:
        """Values that `pickle` writes by itself: numbers, text, lists, dicts."""
        for value in values:
            self._write(pickle.dumps(value, protocol=3)[2:-1])  # without protocol and STOP

    def begin_dict(self) -> None:
        """Opens a dict; keys and values follow in turn."""
        self._write(b"}(")

    def end_dict(self) -> None:
        """Closes the dict."""
        self._write(b"u")

    def begin_tuple(self) -> None:
        """Opens a tuple."""
        self._write(b"(")

    def end_tuple(self) -> None:
        """Closes the tuple."""
        self._write(b"t")

    def begin_call(self, function: Callable) -> None:
        """Opens a call of an importable function; its arguments follow."""
        self._write(f"c{function.__module__}\n{function.__qualname__}\n(".encode())

    def end_call(self) -> None:
        """Closes the call, whose result stands in its place."""
        self._write(b"tR")

    def buffer(self, data: memoryview, identity: bytes) -> None:
        """Bytes, aligned in the file; a buffer of the same identity is written once and referred to."""
        if identity in self.buffers:
            self._write(b"j" + struct.pack("<I", self.buffers[identity]))
            return
        head = b"B" + struct.pack("<I", len(data))
        gap = -(self.position + len(head)) % ALIGNMENT
        gap += ALIGNMENT * (gap == 1)
        # Pushing None, or a small number, and dropping it again does nothing.
        self._write(b"K\x000" * (gap % 2) + b"N0" * ((gap - 3 * (gap % 2)) // 2) + head)
        self._write(data)
        self.buffers[identity] = _FIRST_BUFFER + len(self.buffers)
        self._write(b"r" + struct.pack("<I", self.buffers[identity]))

    def finish(self) -> None:
        """Ends the pickle."""
        self._write(b".")
