"""Pictures -> the moments of their latents, by an autoencoder."""

import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from dnnlib.config import to_dict
from dnnlib.errors import UserError
from dnnlib.hub import is_hub
from torch_utils.devices import own_device
from training.conversion.converted import Converted
from training.conversion.png import encode_png
from training.conversion.text import printable
from training.dataset.decoding import decode_plain_png
from training.dataset.kinds.latents import encode_moments
from training.networks.autoencoder import PLACE_VARIABLE, load_autoencoder
from training.networks.latents import LatentsConfig

THUMBNAIL = 64  # pixels of the longer side, at most
_AT_ONCE = 16  # pictures


class LatentEncoder:
    """Encodes with the autoencoder at a place (training/networks/autoencoder.py), on the device of this command."""

    def __init__(self, place: str):
        self._autoencoder = model = load_autoencoder(place)
        place = place or os.environ[PLACE_VARIABLE]
        place = place if is_hub(place) else os.path.abspath(os.path.expanduser(place))
        self._device = own_device()
        self.channels = model.picture_channels
        space = LatentsConfig(place, model.digest, model.scale, model.shift, model.factor, model.picture_channels)
        self.description = to_dict(space)

    def encoded(self, pictures: Iterable[Converted]) -> Iterator[Converted]:
        """See Encoder."""
        waiting: list[Converted] = []
        for picture in pictures:
            known = next((w.shape for w in waiting if w.shape is not None), picture.shape)
            if len(waiting) == _AT_ONCE or picture.shape not in (None, known):
                yield from self._encode(waiting)
                waiting = []
            waiting.append(picture)
        yield from self._encode(waiting)

    def _encode(self, pictures: list[Converted]) -> Iterator[Converted]:
        """Pictures of one size, and some that can't be used."""
        usable = [p for p in pictures if p.shape is not None]
        moments = iter(self._moments(usable) if usable else ())
        for picture in pictures:
            if picture.shape is None:
                yield picture
                continue
            found = next(moments)
            if not np.isfinite(found).all():
                raise UserError(f"the autoencoder makes no finite latent of {printable(picture.name)}")
            yield replace(picture, png=thumbnail(picture.png), moments=encode_moments(found))

    def _moments(self, pictures: list[Converted]) -> np.ndarray:
        shape, factor = pictures[0].shape, self._autoencoder.factor
        assert shape is not None
        if shape.height % factor or shape.width % factor:
            raise UserError(
                f"{printable(pictures[0].name)} is {shape}; the autoencoder takes sides that are multiples of "
                f"{factor}: say --width=W --height=H"
            )
        pixels = np.stack([decode_plain_png(p.png) for p in pictures]).transpose(0, 3, 1, 2)
        images = torch.from_numpy(pixels).to(self._device).float() / 127.5 - 1
        return self._autoencoder.moments(images).cpu().numpy()


def thumbnail(png: bytes) -> bytes:
    """A PNG of at most THUMBNAIL pixels a side."""
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        return encode_png(np.asarray(image))
