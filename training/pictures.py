"""Picture grids: [-1, 1] images to uint8, many images to one PNG."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Float images in [-1, 1], any shape -> uint8 by the field's rule: x * 127.5 + 128, clamped, cut off."""
    return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def to_pil(image: torch.Tensor) -> Image.Image:
    """uint8 [C, H, W] with 1 or 3 channels -> PIL image."""
    pixels = image.permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))


def grid_size(height: int, width: int, count: int) -> tuple[int, int]:
    """(rows, columns) of a grid that fits 1920 x 1080 where it can, of at most `count` images."""
    columns = max(min(1920 // width, 16), 4)
    rows = max(min(1080 // height, 10), 3)
    columns = min(columns, count)
    return max(min(rows, count // columns), 1), columns


def save_grid(images: torch.Tensor, path: Path, rows: int, columns: int) -> None:
    """uint8 [rows * columns, C, H, W], row by row -> one PNG."""
    _, c, h, w = images.shape
    sheet = images.reshape(rows, columns, c, h, w).permute(2, 0, 3, 1, 4).reshape(c, rows * h, columns * w)
    to_pil(sheet).save(path)
