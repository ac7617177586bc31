"""The grid of sample pictures: the same latents and labels at every snapshot of a run."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from training.dataset import ImageDataset
from training.networks.shared.generator import Generator
from training.sampling.pictures import grid_size, save_grid
from training.step.health import diversity

_AT_ONCE = 16  # images the generator makes at a time


@dataclass
class SampleGrid:
    """Latents [N, z_dim] and labels [N, c_dim] of rows * columns pictures."""

    z: torch.Tensor
    labels: torch.Tensor
    rows: int
    columns: int
    real_diversity: float  # of the real images with the same labels, in grey levels

    @classmethod
    def draw(cls, dataset: ImageDataset, G: Generator, seed: int, reals: Path) -> "SampleGrid":
        """Draws latents, takes labels from random images, and saves those images, of latents the enlarged thumbnails,
        as `reals`."""
        size = G.space.picture_size(dataset.image_shape[1:])
        rows, columns = grid_size(*size, len(dataset))
        rnd = np.random.RandomState(seed)
        chosen = rnd.permutation(len(dataset))[: rows * columns]
        stored, labels = dataset.load(chosen)
        thumbnails = dataset.thumbnails(chosen)
        if thumbnails is None:
            images = G.space.stored_to_pixels(stored)
        else:
            images = F.interpolate(thumbnails, size, mode="bilinear", antialias=True)
        save_grid(images, reals, rows, columns)
        z = torch.from_numpy(rnd.randn(rows * columns, G.z_dim)).float()
        return cls(z, labels, rows, columns, diversity(images))

    @torch.no_grad()
    def save(self, G: Generator, path: Path) -> float:
        """Writes the grid that `G` makes; returns its diversity, in grey levels."""
        device = next(G.parameters()).device
        parts = zip(self.z.to(device).split(_AT_ONCE), self.labels.to(device).split(_AT_ONCE))
        images = torch.cat([G.space.to_pixels(G(z, c, noise_mode="const")).cpu() for z, c in parts])
        save_grid(images, path, self.rows, self.columns)
        return diversity(images)
