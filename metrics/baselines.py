"""Trivial generators that a trained one must beat: the mean image, and a Gaussian fitted to the pixels."""

import torch
from torch import nn

from dnnlib import UserError
from metrics.sources import ImageSet, stored_space

BASELINES = {"mean": 0, "pca64": 64}
"""Name -> number of principal components."""


class PCAGaussian(nn.Module):
    """Samples mean + sum of `components` principal components, each times a normal number of its variance.

    Called like a generator: z [N, components] -> images [N, C, H, W] in [-1, 1], clipped to the range of pixels.
    With 0 components it is the mean image (z_dim 1, unused).
    """

    mean: torch.Tensor
    scaled: torch.Tensor

    def __init__(self, dataset: ImageSet, components: int) -> None:
        super().__init__()
        if not stored_space(dataset).takes_pictures:
            raise UserError(
                f"--baseline is fitted to pixels, but {dataset.name} holds latents: give --data=PICTURES.zip"
            )
        shape = dataset.image_shape
        pixels = torch.cat(
            [dataset.load(range(i, min(i + 1024, len(dataset))))[0] for i in range(0, len(dataset), 1024)]
        )
        rows = pixels.flatten(1).double()
        mean = rows.mean(0)
        scaled = torch.zeros(components, len(mean), dtype=torch.float64)
        if components:
            cov = (rows - mean).T @ (rows - mean) / (len(rows) - 1)
            values, vectors = torch.linalg.eigh(cov)
            scaled = (values[-components:].clamp(min=0).sqrt() * vectors[:, -components:]).T
        self.z_dim, self.c_dim = max(components, 1), 0
        self.img_channels, self.img_resolution, self.img_size = shape[0], max(shape[1:]), shape[1:]
        self.register_buffer("mean", mean.float())
        self.register_buffer("scaled", scaled.float())

    def forward(self, z: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        """z [N, z_dim] -> images [N, C, H, W] in [-1, 1]."""
        pixels = self.mean + z[:, : len(self.scaled)] @ self.scaled
        return pixels.clamp(0, 255).unflatten(1, (self.img_channels, *self.img_size)) / 127.5 - 1
