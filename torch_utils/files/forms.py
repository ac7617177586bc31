"""Which form a network file has, by what no file of another form can hold."""

import json
import struct
from typing import Any, Literal

Form = Literal["safetensors", "zip", "legacy", "pickle"]

MAX_HEADER = 16 * 2**20  # bytes of a safetensors header
_LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled number that opens torch.save's old streams
_PICKLE_PROTOCOLS = (2, 3, 4, 5)


def form_of(data: Any) -> Form | None:
    """The form of a file's bytes; None if it is none of the known ones.

    safetensors is asked for first: the length that it begins with may look like the beginning of anything. But no
    pickle, zip file or stream has a JSON object where that length would put one.
    """
    if _has_safetensors_header(data):
        return "safetensors"
    if data[:4] == b"PK\x03\x04":
        return "zip"
    if data[: len(_LEGACY_START)] == _LEGACY_START:
        return "legacy"
    if data[8:9] == b"{" and data[4:8] == bytes(4):  # four opcodes 0, which there are not: a damaged safetensors header
        return "safetensors"
    if data[:1] == b"\x80" and data[1:2] and data[1] in _PICKLE_PROTOCOLS:
        return "pickle"
    return "safetensors" if data[8:9] == b"{" else None


def _has_safetensors_header(data: Any) -> bool:
    """Eight bytes of length, then that many bytes of a JSON object."""
    if len(data) < 10 or data[8:9] != b"{":
        return False
    (length,) = struct.unpack("<Q", data[:8])
    if not 2 <= length <= min(len(data) - 8, MAX_HEADER):
        return False
    try:
        return isinstance(json.loads(data[8 : 8 + length]), dict)
    except (ValueError, RecursionError):
        return False
