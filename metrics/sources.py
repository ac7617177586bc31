"""Where a metric's images come from: a data set, a generator, or a folder of generated images. All are uint8 RGB."""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from dnnlib import UserError
from dnnlib.config import from_dict
from training.networks.image_space import ImageSpace, ImageSpaceConfig, Pixels, PixelsConfig, build_space

BLOCK = 32  # spans of a pass start at multiples of this, which is the most a generator makes at once
_BLOCK_ROWS = 4096  # pixel rows in a block: 32 images of 128 x 128, 4 of 1024 x 1024


class ImageSet(Protocol):
    """What metrics need of a data set (training/dataset has more)."""

    @property
    def name(self) -> str:
        """For messages and results."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""

    @property
    def label_dim(self) -> int:
        """Length of a label; 0 without labels."""

    def __len__(self) -> int: ...

    def load(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Images uint8 [N, C, H, W] and labels float32 [N, label_dim] at these positions."""

    def content_hash(self) -> str:
        """Hex SHA-256 of pixels and labels."""


class Source(Protocol):
    """Numbered uint8 RGB images."""

    name: str

    def images(self, start: int, stop: int) -> torch.Tensor:
        """Images `start` to `stop` as uint8 [N, 3, H, W]; `start` is a multiple of BLOCK."""


class DatasetSource:
    """Chosen images of a data set, in the order of `positions`; positions past its end are mirrored images."""

    def __init__(self, dataset: ImageSet, positions: np.ndarray) -> None:
        self.name = dataset.name
        self._dataset = dataset
        self._positions = positions
        self._space = stored_space(dataset)

    def images(self, start: int, stop: int) -> torch.Tensor:
        """See Source."""
        positions = self._positions[start:stop]
        size = len(self._dataset)
        images = self._space.stored_to_pixels(self._dataset.load([int(i) for i in positions % size])[0])
        flipped = torch.from_numpy(positions >= size)
        images = torch.where(flipped[:, None, None, None].to(images.device), images.flip(3), images)
        return as_rgb(images)


class GeneratorSource:
    """Images of a generator, image i depending on (seed, i) only.

    z comes from numpy's Philox generator with the key (seed, i), and for a conditional network the label is that of a
    data set image drawn from the same stream. Noise inside the synthesis ('random', as in training) is seeded for
    every block of images. Neither the batch size, nor the number of images asked for, nor the number of processes
    changes an image, and the process's own random state is left as it was.
    """

    def __init__(
        self,
        G: Any,
        dataset: ImageSet,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.name = type(G).__name__
        self._G = G
        self._dataset = dataset
        self._seed = seed
        self._device = torch.device(device)
        side = max(space_of(G).picture_size((G.img_resolution, G.img_resolution)))
        self.block = max(1, min(BLOCK, _BLOCK_ROWS // side))

    def images(self, start: int, stop: int) -> torch.Tensor:
        """See Source."""
        return torch.cat([self._block(first, last) for first, last in self.blocks(start, stop)])

    def blocks(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The spans of images that are made at once; their length depends on the network's resolution only."""
        for first in range(start, stop, self.block):
            yield first, min(first + self.block, stop)

    def latents(self, start: int, stop: int, per_image: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """z [N, per_image, z_dim], c [N, c_dim] and one uniform number t [N] for every image."""
        rngs = [np.random.Generator(np.random.Philox(key=[self._seed, i])) for i in range(start, stop)]
        shape = (per_image, self._G.z_dim)
        z = np.stack([rng.standard_normal(shape, dtype=np.float32) for rng in rngs])
        t = np.array([rng.random(dtype=np.float32) for rng in rngs], dtype=np.float32)
        c = torch.zeros(stop - start, 0)
        if self._G.c_dim > 0:
            c = self._dataset.load([int(rng.integers(len(self._dataset))) for rng in rngs])[1].float()
        return torch.from_numpy(z).to(self._device), c.to(self._device), torch.from_numpy(t).to(self._device)

    @contextlib.contextmanager
    def noise_of(self, block_start: int) -> Iterator[None]:
        """Inside, torch's default generators are seeded for one block; afterwards they are as before."""
        key = hashlib.sha256(f"{self._seed}:{block_start}".encode()).digest()
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(int.from_bytes(key[:4], "little"))
            yield

    def _block(self, start: int, stop: int) -> torch.Tensor:
        z, c, _ = self.latents(start, stop)
        with self.noise_of(start):
            images = self._G(z[:, 0], c)
        if not images.isfinite().all():
            raise UserError("the network makes images with non-finite pixels: it has diverged; use an earlier snapshot")
        return as_rgb(space_of(self._G).to_pixels(images.float()))


def space_of(G: Any) -> ImageSpace:
    """The space of a generator; anything else that is called as one makes pixels."""
    return getattr(G, "space", None) or Pixels(PixelsConfig())


def stored_space(dataset: ImageSet) -> ImageSpace:
    """The space of what a data set stores; any set of images that doesn't say holds pixels."""
    said = getattr(dataset, "space", None) or {"kind": "pixels"}
    return build_space(from_dict(ImageSpaceConfig, said))


def as_rgb(images: torch.Tensor) -> torch.Tensor:
    """Grey images [N, 1, H, W] -> the same in three channels; colour images unchanged."""
    if images.shape[1] == 3:
        return images
    if images.shape[1] == 1:
        return images.expand(-1, 3, -1, -1)
    raise UserError(f"metrics need images of 1 or 3 channels, these have {images.shape[1]}")
