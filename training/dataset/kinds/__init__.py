"""What a data set stores of every picture: its pixels, or an autoencoder's moments."""

from typing import Any, Protocol

import numpy as np

from training.dataset.decoding import ImageShape
from training.dataset.kinds.latents import DESCRIPTION, StoredLatents
from training.dataset.kinds.pixels import StoredPixels


class Kind(Protocol):
    """How the members of a data set are found and decoded."""

    dtype: Any  # numpy's, of the stored numbers
    head_bytes: int  # first bytes of a member that mostly tell its shape
    space: dict[str, Any]  # the config of the networks' image space, as plain data
    may_mirror: bool  # whether flipping what is stored gives the mirrored picture

    def holds(self, name: str) -> bool:
        """Whether a member of this name is one of the images."""

    def shape(self, data: bytes, is_whole: bool) -> ImageShape | None:
        """The shape of an image by its first bytes, or all of them; None if these don't tell it. Raises BadPicture."""

    def decode(self, data: bytes) -> np.ndarray:
        """A member's bytes -> [H, W, C]. Raises BadPicture."""

    def network_shape(self, shape: ImageShape) -> tuple[int, int, int]:
        """(channels, height, width) of what networks see of images stored in `shape`."""


def kind_of(descriptions: dict[str, bytes], where: str) -> Kind:
    """The kind of a data set with these description files. Raises UserError where they are damaged or differ."""
    return StoredLatents(descriptions, where) if descriptions else StoredPixels()


__all__ = ["DESCRIPTION", "Kind", "kind_of"]
