"""A picture on its way from a worker to the data set."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from training.conversion.labels.kinds import Label
from training.dataset.decoding import ImageShape


@dataclass
class Converted:
    """One picture after its way through a worker: `png` and `shape`, or the `reason` why not."""

    name: str
    label: Label
    png: bytes = b""  # of latents the thumbnail
    shape: ImageShape | None = None  # of the picture
    reason: str = ""
    moments: bytes | None = None  # of its latent, as a file


class Encoder(Protocol):
    """Makes latents of pictures. (The worker processes don't load torch, so it is known here by what it does.)"""

    channels: int  # of the pictures that it takes
    description: dict[str, Any]  # of the data set

    def encoded(self, pictures: Iterable[Converted]) -> Iterator[Converted]:
        """The same pictures with moments and thumbnails, in order. UserError for sizes that can't be encoded."""
