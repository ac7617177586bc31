"""PNG encoding with the same bytes for the same pixels."""

import io

import numpy as np
from PIL import Image

FAST, SMALL = 1, 9  # zlib levels; level 1 takes a third of the time of Pillow's default and 10 % more space


def encode_png(pixels: np.ndarray, level: int = FAST) -> bytes:
    """uint8 [H, W, C] with C = 1 (grey) or 3 (RGB), or [H, W] -> a PNG file without any metadata."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, format="png", compress_level=level)
    return out.getvalue()


def image_name(index: int) -> str:
    """The field's name for image number `index`: `00000/img00000000.png`, a thousand to a folder."""
    return f"{index // 1000:05d}/img{index:08d}.png"
