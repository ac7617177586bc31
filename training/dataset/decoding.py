"""Decoding of a data set's own pictures, fast: the 8-bit RGB or grey PNGs that converters write."""

import io
import struct
from typing import NamedTuple

import numpy as np
from PIL import Image

try:
    import pyspng
except ImportError:  # it's only faster; Pillow reads the same files
    pyspng = None

_PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
_PNG_HEADER = struct.Struct(">16sLLBB3x")
HEADER_BYTES = _PNG_HEADER.size
_CHANNELS = {0: 1, 2: 3}  # PNG colour types, section 11.2.1 of the specification: grey, truecolour
_SPECIAL_CHUNKS = (b"tRNS", b"iCCP", b"eXIf", b"acTL")  # they need more than decoding
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
_SPECIAL_TEXTS = (b"Raw profile type ", b"XML:com.adobe.xmp")  # these may hold an orientation


class ImageShape(NamedTuple):
    """Channels, height and width in pixels."""

    channels: int
    height: int
    width: int

    def __str__(self) -> str:
        kind = {1: "grey", 3: "RGB"}.get(self.channels, f"{self.channels}-channel")
        return f"{self.width}x{self.height} {kind}"


def peek_png(head: bytes) -> ImageShape | None:
    """The shape that the first HEADER_BYTES of an 8-bit grey or RGB PNG state; None for anything else."""
    if len(head) < HEADER_BYTES or not head.startswith(_PNG_START):
        return None
    _, width, height, depth, colour = _PNG_HEADER.unpack(head[:HEADER_BYTES])
    if depth != 8 or colour not in _CHANNELS:
        return None
    return ImageShape(_CHANNELS[colour], height, width)


def is_plain_png(data: bytes) -> bool:
    """True for a whole 8-bit grey or RGB PNG none of whose chunks asks for more than decoding. Chunks behind the
    pixels count, too: an orientation may stand there (PNG specification, 3rd edition, section 5.6)."""
    if peek_png(data[:HEADER_BYTES]) is None:
        return False
    at = 8
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind in _SPECIAL_CHUNKS or (kind in _TEXT_CHUNKS and data[at + 8 : at + 25].startswith(_SPECIAL_TEXTS)):
            return False
        at += 12 + length
    return True


def decode_plain_png(data: bytes) -> np.ndarray:
    """A plain PNG -> uint8 [H, W, C], C = 1 or 3. Raises OSError, ValueError or SyntaxError if it is damaged."""
    if pyspng is not None:
        try:
            pixels = pyspng.load(data)
        except (RuntimeError, ValueError) as e:
            raise OSError(str(e)) from e
    else:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            pixels = np.asarray(image)
    return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels
