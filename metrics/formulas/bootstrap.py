"""How far a value would move with another set of generated images: the bootstrap (Efron 1979) over them.

The real images stay as they are: they are the given data set. A resampling is a row of image numbers, drawn with
replacement; values come for all of them, so that two networks can be resampled together.
"""

import numpy as np
import torch

from metrics.formulas.frechet import Moments, frechet_distance, moments_of
from metrics.formulas.inception_score import inception_score
from metrics.formulas.kernel import polynomial_kernel

_ROWS = 2000  # of the kernel matrix held at once


def draw_rows(count: int, repeats: int, seed: int = 0) -> np.ndarray:
    """Image numbers [repeats, count], each row drawn with replacement."""
    return np.random.default_rng(seed).integers(count, size=(repeats, count))


def multiplicities(rows: np.ndarray) -> torch.Tensor:
    """How often each image is in each resampling: float64 [repeats, count]."""
    return torch.from_numpy(np.stack([np.bincount(row, minlength=rows.shape[1]) for row in rows])).double()


def frechet_values(real: Moments, generated: torch.Tensor, rows: np.ndarray, is_biased: bool = False) -> np.ndarray:
    """The Fréchet distance for every resampling of generated features [N, D]; `is_biased`: covariances divide by N."""
    real = real.biased() if is_biased else real
    values = []
    for row in rows:
        moments = moments_of(generated[torch.from_numpy(row)])
        values.append(frechet_distance(real, moments.biased() if is_biased else moments))
    return np.array(values)


def kernel_values(real: torch.Tensor, generated: torch.Tensor, rows: np.ndarray) -> np.ndarray:
    """The unbiased squared MMD for every resampling of generated features [N, D]; real [M, D].

    Pairs of an image with itself stay out, also between its copies: otherwise every repetition would add a kernel of a
    point with itself and the spread would be that of the repeats.
    """
    n = len(generated)
    weights = multiplicities(rows).to(generated.device)
    real, generated = real.double(), generated.double()
    pairs = crossed = torch.zeros(len(rows), dtype=torch.float64, device=generated.device)
    for start in range(0, n, _ROWS):
        part = slice(start, min(start + _ROWS, n))
        kernel = polynomial_kernel(generated[part], generated)
        own = torch.arange(part.stop - start, device=kernel.device)
        kernel[own, own + start] = 0
        pairs = pairs + ((weights[:, part] @ kernel) * weights).sum(1)
        crossed = crossed + weights[:, part] @ polynomial_kernel(generated[part], real).mean(1)
    values = pairs / (n * n - weights.square().sum(1)) - 2 * crossed / n
    return values.cpu().numpy()


def inception_values(probs: torch.Tensor, rows: np.ndarray) -> np.ndarray:
    """The inception score's mean over its splits, for every resampling of class probabilities [N, classes]."""
    return np.array([inception_score(probs[torch.from_numpy(row)])[0] for row in rows])
