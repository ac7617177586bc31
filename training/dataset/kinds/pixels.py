"""Data sets of pictures."""

from typing import Any

import numpy as np

from training.dataset.decoding import HEADER_BYTES, ImageShape, peek_png
from training.dataset.pictures import decode, looks_like_picture, shape_of


class StoredPixels:
    """Image files, uint8."""

    dtype = np.uint8
    head_bytes = HEADER_BYTES
    may_mirror = True

    def __init__(self) -> None:
        self.space: dict[str, Any] = {"kind": "pixels"}

    def holds(self, name: str) -> bool:
        base = name.rsplit("/", 1)[-1]
        return looks_like_picture(base) and not base.startswith(".") and "__MACOSX/" not in name

    def shape(self, data: bytes, is_whole: bool) -> ImageShape | None:
        return peek_png(data) or (shape_of(data) if is_whole else None)

    def decode(self, data: bytes) -> np.ndarray:
        return decode(data)

    def network_shape(self, shape: ImageShape) -> tuple[int, int, int]:
        return shape.channels, shape.height, shape.width
