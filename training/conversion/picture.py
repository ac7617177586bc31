"""Pictures of a source that aren't decoded yet."""

from typing import Protocol

import numpy as np
from PIL import Image

from training.dataset.folder_reader import read_file
from training.dataset.pictures import BadPicture, open_picture
from training.dataset.zip_reader import BadMember


class Picture(Protocol):
    """A picture that isn't decoded yet, small enough to be sent to a worker process."""

    cost: int  # bytes that sending it moves

    def open(self) -> Image.Image:
        """Decodes it. Raises BadPicture."""


class EncodedPicture:
    """An image file in memory."""

    def __init__(self, data: bytes):
        self.data = data
        self.cost = len(data)

    def open(self) -> Image.Image:
        """Decodes it. Raises BadPicture."""
        return open_picture(self.data)


class FilePicture:
    """An image file on disk, read only where it is decoded."""

    cost = 0

    def __init__(self, path: str):
        self.path = path

    def open(self) -> Image.Image:
        """Reads and decodes it. Raises BadPicture."""
        try:
            return open_picture(read_file(self.path))
        except BadMember as e:
            raise BadPicture(str(e)) from e


class PixelPicture:
    """Pixels as they are, uint8 [H, W] or [H, W, 3]."""

    def __init__(self, pixels: np.ndarray):
        self.pixels = pixels
        self.cost = pixels.nbytes

    def open(self) -> Image.Image:
        """The same pixels as an image."""
        return Image.fromarray(self.pixels)


class NoPicture:
    """Stands for a member of the source that can't be used, so that it is counted and listed."""

    cost = 0

    def __init__(self, reason: str):
        self.reason = reason

    def open(self) -> Image.Image:
        """Raises BadPicture."""
        raise BadPicture(self.reason)
