"""Directions in w along which pictures change, without labels or further training.

SeFa: Shen and Zhou 2021, "Closed-Form Factorization of Latent Semantics in GANs", equations 4 to 6.
PCA: Härkönen et al. 2020, "GANSpace: Discovering Interpretable GAN Controls", section 2.1.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import nn

from dnnlib.errors import UserError
from dnnlib.files import read_bytes, write_file
from dnnlib.progress import tqdm
from training.networks.shared.generator import Generator, NoiseMode
from training.sampling.pictures import labelled_sheet
from training.sampling.seeds import device_of, images_of_styles
from training.sampling.sheets import pictures

Method = Literal["sefa", "pca"]
METHODS = ("sefa", "pca")
_SAMPLES = 10_000  # styles that spread and principal components are estimated from
_BATCH = 1000
_MAX_FILE = 64 << 20


@dataclass
class Directions:
    """Unit vectors in w, the most important one first."""

    vectors: torch.Tensor  # [K, w_dim]
    scales: torch.Tensor  # [K]: the standard deviation of w along each
    method: Method

    def moved(
        self,
        ws: torch.Tensor,  # [N, num_ws, w_dim]
        amounts: Sequence[float],  # of each direction, in standard deviations; the rest are 0
        styles: Sequence[int] | None = None,  # which styles move; None: all
    ) -> torch.Tensor:
        """ws moved along the directions."""
        factors = torch.tensor(list(amounts), dtype=torch.float32) * self.scales[: len(amounts)]
        shift = (factors @ self.vectors[: len(amounts)]).to(ws.device)
        result = ws.clone()
        result[:, slice(None) if styles is None else list(styles)] += shift
        return result

    def save(self, path: str | Path) -> None:
        """Writes an .npz file with the arrays `vectors`, `scales`, `method`. Raises WriteError."""
        buffer = io.BytesIO()
        np.savez(buffer, vectors=self.vectors.numpy(), scales=self.scales.numpy(), method=np.array(self.method))
        write_file(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str, G: Generator) -> "Directions":
        """Reads such a file. UserError if it is none, or of another network's w."""
        try:
            with np.load(io.BytesIO(read_bytes(path, _MAX_FILE)), allow_pickle=False) as arrays:
                vectors, scales, method = (arrays[name] for name in ("vectors", "scales", "method"))
        except FileNotFoundError:
            raise UserError(f"{path} does not exist: generate.py directions makes it") from None
        except Exception as e:  # numpy and zipfile raise about every kind
            raise UserError(f"{path} is no file of directions ({str(e)[:100]})") from e
        fits = vectors.ndim == 2 and scales.shape == vectors.shape[:1] and str(method) in METHODS
        if not fits or vectors.dtype.kind != "f" or not (np.isfinite(vectors).all() and np.isfinite(scales).all()):
            raise UserError(f"{path} is no file of directions")
        if vectors.shape[1] != G.w_dim:
            raise UserError(f"{path} has directions of {vectors.shape[1]} numbers, this network's w has {G.w_dim}")
        chosen: Any = str(method)
        return cls(torch.from_numpy(vectors).float(), torch.from_numpy(scales).float(), chosen)


def find_directions(
    G: Generator,
    method: Method,
    count: int,
    c: torch.Tensor,  # [1, c_dim]
    styles: Sequence[int] | None = None,  # SeFa: of the layers that these styles go to; None: of all
    seed: int = 0,
) -> Directions:
    """The first `count` directions. UserError if there are not so many, or no layer of the network takes w directly."""
    if count > G.w_dim:
        raise UserError(f"--count={count}: w has {G.w_dim} dimensions")
    w = _styles_drawn(G, c, seed)
    centred = w - w.mean(0)
    if method == "pca":
        basis = torch.linalg.svd(centred, full_matrices=False).Vh
    else:
        weights = style_weights(G, styles)
        # Largest change of what the layers get out of w: eigenvectors of A^T A, by falling eigenvalue.
        basis = torch.linalg.eigh(weights.T @ weights).eigenvectors.flip(1).T
    vectors = basis[:count]
    vectors = vectors * torch.where(vectors.sum(1, keepdim=True) < 0, -1.0, 1.0)  # the sign is free: a fixed one
    return Directions(vectors.float(), (centred @ vectors.T).std(0).float(), method)


@torch.no_grad()
def _styles_drawn(G: Generator, c: torch.Tensor, seed: int) -> torch.Tensor:
    """w [_SAMPLES, w_dim] in float64 on the CPU."""
    z = torch.from_numpy(np.random.RandomState(seed).randn(_SAMPLES, G.z_dim)).float()
    device = device_of(G)
    parts = [G.mapping(part.to(device), c.to(device).expand(len(part), -1))[:, 0].cpu() for part in z.split(_BATCH)]
    return torch.cat(parts).double()


@torch.no_grad()
def style_weights(G: Generator, styles: Sequence[int] | None = None) -> torch.Tensor:
    """A [outputs, w_dim], float64: the weights, gains included, of `style_layers`: what they make of unit vectors."""
    unit = torch.eye(G.w_dim, device=device_of(G))
    weights = [(layer(unit) - layer(torch.zeros_like(unit))).T.double().cpu() for layer in style_layers(G, styles)]
    if not weights:
        raise UserError(f"no layer of {G.cfg.kind} takes w directly: --method=pca looks at w alone")
    return torch.cat(weights)


@torch.no_grad()
def style_layers(G: Generator, styles: Sequence[int] | None = None) -> list[nn.Module]:
    """All layers that take a style directly (of `styles`, or any), whatever the architecture: the modules with a matrix
    that are seen to be given a piece of ws."""
    ws = torch.zeros(1, G.num_ws, G.w_dim, device=device_of(G))
    storage = ws.untyped_storage().data_ptr()
    found: dict[nn.Module, set[int]] = {}

    def watch(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        given = inputs[0] if inputs else None
        if not isinstance(given, torch.Tensor) or given.shape != (1, G.w_dim):
            return
        if given.untyped_storage().data_ptr() == storage:
            found.setdefault(module, set()).add(given.storage_offset() // G.w_dim)

    modules = [m for m in G.modules() if any(p.ndim == 2 for p in m.parameters(recurse=False))]
    handles = [module.register_forward_pre_hook(watch) for module in modules]
    try:
        G.synthesis(ws, noise_mode="none")
    finally:
        for handle in handles:
            handle.remove()
    wanted = set(range(G.num_ws) if styles is None else styles)
    return [module for module, indices in found.items() if indices & wanted]


def direction_sheet(
    G: Generator,
    directions: Directions,
    ws: torch.Tensor,  # [1, num_ws, w_dim]
    amounts: Sequence[float],
    styles: Sequence[int] | None,
    noise_mode: NoiseMode,
    scale: int,
) -> Image.Image:
    """A row per direction, a column per amount in standard deviations."""
    rows = []
    count = len(directions.vectors)
    for i in tqdm(range(count), unit="row", disable=None, leave=False):
        moved = [directions.moved(ws, [0.0] * i + [amount], styles) for amount in amounts]
        rows.append(pictures(images_of_styles(G, torch.cat(moved), noise_mode, [0] * len(amounts)), scale))
    return labelled_sheet(rows, [f"{directions.method} {i}" for i in range(count)], [f"{a:+g}" for a in amounts])
