"""How far a distance would move with another set of generated images: the bootstrap (Efron 1979) over them.

The real images stay as they are: they are the given data set.
"""

import numpy as np
import torch

from metrics.formulas.frechet import Moments, frechet_distance, moments_of
from metrics.formulas.kernel import polynomial_kernel

_ROWS = 2000  # of the kernel matrix held at once


def frechet_spread(real: Moments, generated: torch.Tensor, repeats: int, seed: int = 0) -> float:
    """Standard deviation of the Fréchet distance over resampled generated features [N, D]."""
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(repeats):
        rows = torch.from_numpy(rng.integers(len(generated), size=len(generated)))
        values.append(frechet_distance(real, moments_of(generated[rows])))
    return float(np.std(values, ddof=1))


def kernel_spread(real: torch.Tensor, generated: torch.Tensor, repeats: int, seed: int = 0) -> float:
    """Standard deviation of the unbiased squared MMD over resampled generated features [N, D]; real [M, D].

    A resampled set is a vector of multiplicities w. Pairs of an image with itself stay out, also between its copies:
    otherwise every repetition would add a kernel of a point with itself and the spread would be that of the repeats.
    """
    rng = np.random.default_rng(seed)
    n = len(generated)
    weights = torch.from_numpy(rng.multinomial(n, np.full(n, 1 / n), size=repeats)).double().to(generated.device)
    real, generated = real.double(), generated.double()
    pairs = crossed = torch.zeros(repeats, dtype=torch.float64, device=generated.device)
    for start in range(0, n, _ROWS):
        rows = slice(start, min(start + _ROWS, n))
        kernel = polynomial_kernel(generated[rows], generated)
        own = torch.arange(rows.stop - start, device=kernel.device)
        kernel[own, own + start] = 0
        pairs = pairs + ((weights[:, rows] @ kernel) * weights).sum(1)
        crossed = crossed + weights[:, rows] @ polynomial_kernel(generated[rows], real).mean(1)
    values = pairs / (n * n - weights.square().sum(1)) - 2 * crossed / n
    return float(values.std())
