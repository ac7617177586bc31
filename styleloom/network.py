"""What `styleloom.load` returns: a generator with the few things that one does with it."""

from collections.abc import Sequence
from dataclasses import asdict
from os import PathLike, fspath
from typing import Any

import numpy as np
import torch
from PIL import Image

from dnnlib import UserError
from dnnlib.cli import newest_snapshot
from dnnlib.progress import tqdm
from metrics.detectors import load_detector
from styleloom.pictures import Pictures, Projected
from training.dataset.pictures import BadPicture
from training.networks.shared.generator import Generator, NoiseMode
from training.sampling.commands.options import load_generator
from training.sampling.labels import drawn_labels, vector_labels
from training.sampling.projection.perceptual import PerceptualDistance
from training.sampling.projection.search import ProjectionConfig, Space, as_target, load_target
from training.sampling.projection.search import project as search
from training.sampling.seeds import class_label, device_of, images_of_styles, styles_of_seeds

Labels = None | int | Sequence[int] | Sequence[Sequence[float]] | np.ndarray | torch.Tensor


class Network:
    """A trained generator. Seeds give the pictures that `generate.py` makes of them, bit for bit."""

    def __init__(self, G: Generator, name: str):
        """`name`: where it came from, for showing."""
        self.G = G
        self.name = name

    @property
    def classes(self) -> int:
        """How many classes it knows; 0 for an unconditional network, and for one whose labels are vectors."""
        return 0 if self.G.label_vectors is not None else self.G.c_dim

    def styles(self, seeds: int | Sequence[int], truncation: float = 1.0, labels: Labels = None) -> torch.Tensor:
        """Styles ws [N, num_ws, w_dim] of seeds."""
        chosen = [seeds] if isinstance(seeds, int) else list(seeds)
        if not chosen or not all(isinstance(s, int | np.integer) and 0 <= s < 2**32 for s in chosen):
            raise UserError(f"seeds={seeds!r}: whole numbers from 0 to 2^32 - 1, such as range(16)")
        return styles_of_seeds(self.G, [int(s) for s in chosen], self._labels(labels, chosen), truncation)

    def sample(
        self,
        seeds: int | Sequence[int],
        truncation: float = 1.0,  # psi: 1 for none, 0 for the average style
        labels: Labels = None,  # a class, a class or a vector per seed, or [N, c_dim]; None where there are no classes
        noise_mode: NoiseMode = "const",
    ) -> Pictures:
        """A picture per seed."""
        chosen = [seeds] if isinstance(seeds, int) else list(seeds)
        return Pictures(images_of_styles(self.G, self.styles(chosen, truncation, labels), noise_mode, chosen))

    def render(self, ws: torch.Tensor, noise_mode: NoiseMode = "const") -> Pictures:
        """Pictures of styles [N, num_ws, w_dim], such as mixtures of those that `styles` gives."""
        if ws.ndim != 3 or ws.shape[1] < self.G.num_ws or ws.shape[2] != self.G.w_dim:
            raise UserError(f"styles of shape {tuple(ws.shape)}; wanted [N, {self.G.num_ws}, {self.G.w_dim}]")
        return Pictures(images_of_styles(self.G, ws, noise_mode))

    def project(
        self,
        image: str
        | PathLike[str]
        | Image.Image
        | np.ndarray,  # a file, a picture, uint8 [H, W], [H, W, 3] or [H, W, 4]
        steps: int = ProjectionConfig.steps,
        space: Space = ProjectionConfig.space,  # a style for every layer, or "w": one for all
        label: Labels = None,
        detector: str = "lite0",
        seed: int = ProjectionConfig.seed,
    ) -> Projected:
        """The style whose picture comes closest to `image`."""
        target = self._target(image)
        device = device_of(self.G)
        distance = PerceptualDistance(load_detector(detector, device), target.to(device))
        with tqdm(total=steps, unit="step", disable=None, leave=False) as bar:

            def progress(best: float) -> None:
                bar.set_postfix_str(f"distance {best:.4f}", refresh=False)
                bar.update()

            cfg = ProjectionConfig(steps=steps, space=space, seed=seed)
            found = search(self.G, distance, cfg, self._labels(label, [seed]), progress)
        images = images_of_styles(self.G, torch.cat([found.average_ws, found.ws]))
        shown = torch.stack([images[0], self.G.space.to_pixels(target)[0], images[1]])
        return Projected(shown, found.ws, found.distance, found.average_distance)

    def _target(self, image: Any) -> torch.Tensor:
        if isinstance(image, str | PathLike):
            return load_target(fspath(image), self.G)
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8:
                raise UserError(f"image: an array of {image.dtype}; wanted uint8, [H, W] or [H, W, 3]")
            image = Image.fromarray(image)
        try:
            return as_target(image, self.G)
        except BadPicture as e:
            raise UserError(f"image: {e}") from e

    def _labels(self, labels: Labels, seeds: Sequence[int]) -> torch.Tensor:
        """[N, c_dim], or [1, c_dim] for all. UserError where they don't fit the network or the seeds."""
        if labels is None and self.G.label_vectors is not None:
            return drawn_labels(self.G, seeds)
        if labels is None or isinstance(labels, int):
            return class_label(self.G, labels)
        rows = torch.as_tensor(labels).tolist()
        if len(rows) not in (1, len(seeds)):
            raise UserError(f"labels: {len(rows)} of them for {len(seeds)} seeds")
        if all(isinstance(row, int) for row in rows):
            return torch.cat([class_label(self.G, row) for row in rows])
        return vector_labels(self.G, rows, "labels")

    def __repr__(self) -> str:
        height, width = self.G.img_size
        size = sum(p.numel() for p in self.G.parameters())
        kind = self.G.cfg.kind
        return f"<{kind} of {width}x{height} pixels, {size:,} parameters, {self.G.num_ws} styles: {self.name}>"

    def config(self) -> dict[str, Any]:
        """The generator's config, as plain data."""
        return asdict(self.G.cfg)


def load_network(path: str | PathLike[str], imports: Sequence[str], device: str | None) -> Network:
    """See `styleloom.load`."""
    file = newest_snapshot(str(path))
    G = load_generator(file, imports)
    return Network(G if device is None else G.to(device), file)
