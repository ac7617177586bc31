"""Decoding of a data set's own pictures, fast: 8-bit RGB or L files that the converter or its kin wrote."""

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
_MODES = {"L": 1, "RGB": 3}


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


def peek_any(data: bytes) -> ImageShape:
    """The shape of a whole image file that Pillow knows. Raises OSError or ValueError if it is none or not RGB/L."""
    with Image.open(io.BytesIO(data)) as image:
        if image.mode not in _MODES:
            raise ValueError(f"its pixels are of kind {image.mode}, not RGB or L")
        return ImageShape(_MODES[image.mode], image.height, image.width)


def decode(data: bytes) -> np.ndarray:
    """An image file -> uint8 [H, W, C], C = 1 or 3. Raises OSError, ValueError or SyntaxError if it is damaged."""
    if pyspng is not None and peek_png(data[:HEADER_BYTES]) is not None:
        try:
            pixels = pyspng.load(data)
        except (RuntimeError, ValueError) as e:
            raise OSError(f"damaged PNG: {e}") from e
    else:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode not in _MODES:
                raise ValueError(f"its pixels are of kind {image.mode}, not RGB or L")
            pixels = np.asarray(image)
    return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels
