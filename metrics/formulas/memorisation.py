"""Whether generated pictures are copies of training pictures: their distances to the nearest of these, beside the
distances of held-out pictures of the same kind (Meehan et al. 2020, "A Non-Parametric Test to Detect Data-Copying in
Generative Models", arXiv 2004.05675)."""

import numpy as np
import torch
from scipy.stats import mannwhitneyu

from metrics.formulas.neighbours import BLOCK, distance_blocks

QUANTILE = 0.05  # of the held-out pictures' distances, below which a picture counts as close


def nearest_distances(points: torch.Tensor, others: torch.Tensor, block: int = BLOCK) -> np.ndarray:
    """Distance of each of the points [N, D] to the nearest of the others [M, D]: [N].

    The nearest is found by fast matrix products; its distance is then computed from the difference, so that a copy is
    at 0 and not at the products' rounding error.
    """
    centre = others.double().mean(0).to(others.dtype)
    points, others = points - centre, others - centre
    nearest = [distances.argmin(1) for _, distances in distance_blocks(points, others, block)]
    return (points - others[torch.cat(nearest)]).double().norm(dim=1).cpu().numpy()


def memorisation(generated: np.ndarray, held_out: np.ndarray) -> dict[str, float]:
    """From distances to the nearest training picture [N], [M]:

    `share`: of generated pictures closer than 95 % of the held-out ones are; 0.05 where the two are alike.
    `ratio`: of the medians; 1 where the two are alike, less for copies.
    `p`: probability of generated pictures seeming so close by chance (Mann-Whitney's test, one-sided).
    """
    return {
        "share": float((generated < _close(held_out)).mean()),
        "ratio": _ratio(float(np.median(generated)), held_out),
        "p": float(mannwhitneyu(generated, held_out, alternative="less").pvalue),
    }


def memorisation_values(generated: np.ndarray, held_out: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Share and ratio for resamplings `rows` [R, N] of the generated pictures: [R] each."""
    close, drawn = _close(held_out), generated[rows]
    ratios = [_ratio(float(median), held_out) for median in np.median(drawn, 1)]
    return {"share": (drawn < close).mean(1), "ratio": np.array(ratios)}


def _close(held_out: np.ndarray) -> float:
    return float(np.quantile(held_out, QUANTILE))


def _ratio(median: float, held_out: np.ndarray) -> float:
    return median / max(float(np.median(held_out)), 1e-12)
