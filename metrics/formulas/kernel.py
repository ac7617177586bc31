"""Kernel distance: squared MMD with a cubic polynomial kernel, unbiased (Bińkowski et al. 2018, "Demystifying MMD
GANs", section 3 and eq. 4)."""

import numpy as np
import torch

SUBSETS = 100
SUBSET_SIZE = 1000
_WHOLE_KERNEL_ROWS = 10_000  # up to this many rows in all, one kernel matrix serves every subset at less cost


def polynomial_kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(x.y / D + 1)^3 for rows [N, D] and [M, D] -> [N, M]."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def kernel_distance(
    real: torch.Tensor,
    generated: torch.Tensor,
    *,
    subsets: int = SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = 0,
) -> tuple[float, float]:
    """(mean, standard deviation) of the unbiased estimate over random subsets, drawn without replacement.

    Features [N, D] and [M, D]; subsets have min(N, M, subset_size) rows of each. The mean may be slightly negative.
    """
    m = min(len(real), len(generated), subset_size)
    if m < 2:
        raise ValueError("the kernel distance needs at least 2 images on each side")
    rng = np.random.default_rng(seed)
    pairs = [
        tuple(torch.from_numpy(rng.choice(len(rows), m, replace=False)).to(real.device) for rows in (real, generated))
        for _ in range(subsets)
    ]
    x, y = (torch.stack([pair[side] for pair in pairs]) for side in (0, 1))
    whole = len(real) + len(generated) <= _WHOLE_KERNEL_ROWS
    within, between = (_sums_from_whole if whole else _sums_by_subset)(real.double(), generated.double(), x, y)
    values = within / (m * (m - 1)) - 2 * between / m**2
    return float(values.mean()), float(values.std(correction=0))


def _sums_from_whole(
    real: torch.Tensor,
    generated: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Kernel sums of subsets x, y [S, m] within the sides (no row with itself) and between them: [S], [S].

    A subset is a row of zeros and ones, so that all subsets are two matrix products with the kernel.
    """
    in_x = torch.zeros(len(x), len(real), dtype=real.dtype, device=real.device).scatter_(1, x, 1)
    in_y = torch.zeros(len(y), len(generated), dtype=real.dtype, device=real.device).scatter_(1, y, 1)
    within = torch.zeros(len(x), dtype=real.dtype, device=real.device)
    for members, rows in ((in_x, real), (in_y, generated)):
        kernel = polynomial_kernel(rows, rows).fill_diagonal_(0)
        within += ((members @ kernel) * members).sum(1)
    between = ((in_x @ polynomial_kernel(real, generated)) * in_y).sum(1)
    return within, between


def _sums_by_subset(
    real: torch.Tensor,
    generated: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same sums, with one small kernel for every subset."""
    within, between = [], []
    for i, j in zip(x, y):
        a, b = real[i], generated[j]
        within.append(sum(polynomial_kernel(rows, rows).fill_diagonal_(0).sum() for rows in (a, b)))
        between.append(polynomial_kernel(a, b).sum())
    return torch.stack(within), torch.stack(between)  # type: ignore[arg-type]
