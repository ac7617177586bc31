"""Pictures that show themselves in a notebook."""

import io
import math
from collections.abc import Iterator
from os import PathLike, fspath

import numpy as np
import torch
from PIL import Image

from dnnlib import UserError
from training.sampling.pictures import labelled_sheet, to_pil, write_picture
from training.sampling.sheets import pictures, sheet_scale

SIDE = 96  # pixels that small pictures are enlarged to on a grid


class Pictures:
    """One or more pictures of one size: a sequence of PIL pictures, an array, and a grid that a notebook shows."""

    def __init__(self, images: torch.Tensor):
        """`images`: uint8 [N, C, H, W] on the CPU."""
        self.images = images

    @property
    def array(self) -> np.ndarray:
        """uint8 [N, H, W, C]."""
        return self.images.permute(0, 2, 3, 1).contiguous().numpy()

    def grid(self, columns: int | None = None, scale: int | None = None) -> Image.Image:
        """All on one sheet; by default about square, small pictures enlarged."""
        if columns is not None and columns < 1 or scale is not None and scale < 1:
            raise UserError("columns and scale begin at 1")
        columns = columns or math.ceil(math.sqrt(len(self)))
        scale = scale or sheet_scale(tuple(self.images.shape[2:]), SIDE)
        cells = pictures(self.images, scale)
        return labelled_sheet([cells[i : i + columns] for i in range(0, len(cells), columns)])

    def save(self, path: str | PathLike[str], columns: int | None = None) -> None:
        """Writes the grid, or, where there is one picture, that. UserError if it can't be written."""
        write_picture(self[0] if len(self) == 1 else self.grid(columns), fspath(path))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Image.Image:
        return to_pil(self.images[index])

    def __iter__(self) -> Iterator[Image.Image]:
        return (to_pil(image) for image in self.images)

    def __repr__(self) -> str:
        count, channels, height, width = self.images.shape
        return f"<{count} picture{'s' * (count != 1)} of {width}x{height}, {channels} channels>"

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        return png(self.grid())


class Projected(Pictures):
    """The average style's picture, the target, and the closest picture found, in this order; and its styles."""

    def __init__(self, images: torch.Tensor, ws: torch.Tensor, distance: float, average_distance: float):
        """`ws`: [1, num_ws, w_dim]; distances as `generate.py project` prints them."""
        super().__init__(images)
        self.ws, self.distance, self.average_distance = ws, distance, average_distance

    def grid(self, columns: int | None = None, scale: int | None = None) -> Image.Image:
        """The three beside each other, with their names."""
        cells = pictures(self.images, scale or sheet_scale(tuple(self.images.shape[2:]), 2 * SIDE))
        return labelled_sheet([cells], column_labels=["average", "target", "projected"])

    def __repr__(self) -> str:
        return f"<projection at distance {self.distance:.4f}; the average style's: {self.average_distance:.4f}>"


def png(picture: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
