"""Metrics from nearest neighbours in feature space: precision and recall (Kynkäänniemi et al. 2019, "Improved
Precision and Recall Metric for Assessing Generative Models"), density and coverage (Naeem et al. 2020, "Reliable
Fidelity and Diversity Metrics for Generative Models")."""

from collections.abc import Iterator

import torch

BLOCK = 10_000  # rows whose distances to everything are held at once
_LARGEST_BLOCK = 500_000_000  # distances; with many columns fewer rows are taken


def kth_distances(points: torch.Tensor, k: int, block: int = BLOCK) -> torch.Tensor:
    """Distance of each of the points [N, D] to its k-th nearest other point: [N]."""
    if len(points) <= k:
        raise ValueError(f"{k} nearest neighbours need more than {k} points")
    radii = []
    for start, distances in distance_blocks(points, points, block):
        own = torch.arange(len(distances), device=points.device)
        distances[own, own + start] = torch.inf
        radii.append(distances.kthvalue(k, dim=1).values)
    return torch.cat(radii)


def precision_recall(
    real: torch.Tensor,
    generated: torch.Tensor,
    k: int = 3,
    block: int = BLOCK,
) -> tuple[float, float]:
    """Fraction of generated images inside the real manifold, and the reverse. Features [N, D], [M, D]; N, M > k.

    A manifold is the union of the balls around its points that reach to their k-th neighbours (eq. 1 and 2).
    """
    real, generated = _centred(real, generated)
    precision = _inside(generated, real, kth_distances(real, k, block), block)
    recall = _inside(real, generated, kth_distances(generated, k, block), block)
    return precision, recall


def density_coverage(
    real: torch.Tensor,
    generated: torch.Tensor,
    k: int = 5,
    block: int = BLOCK,
) -> tuple[float, float]:
    """Density (mean number of real k-balls around a generated image, over k; eq. 4) and coverage (fraction of real
    k-balls that hold a generated image; eq. 6). Features [N, D] (N > k) and [M, D]."""
    real, generated = _centred(real, generated)
    radii = kth_distances(real, k, block)
    hits, covered = 0, 0
    for start, distances in distance_blocks(real, generated, block):
        inside = distances < radii[start : start + len(distances), None]
        hits += int(inside.sum())
        covered += int(inside.any(1).sum())
    return hits / (k * len(generated)), covered / len(real)


def precision_recall_values(
    real: torch.Tensor,
    generated: torch.Tensor,
    k: int,
    weights: torch.Tensor,
    block: int = BLOCK // 4,  # as numbers, not bits, they take more memory here
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both for resamplings of the generated images that are given by multiplicities `weights` [R, M]: [R], [R].

    The balls around generated images are those of the whole set: copies would be their own nearest neighbours.
    """
    real, generated = _centred(real, generated)
    radii = kth_distances(real, k, block)
    precise = torch.cat([(d <= radii).any(1) for _, d in distance_blocks(generated, real, block)])
    radii = kth_distances(generated, k, block)
    recalled = _covered(((d <= radii) for _, d in distance_blocks(real, generated, block)), weights)
    return weights.to(precise.device) @ precise.to(weights.dtype) / len(generated), recalled / len(real)


def density_coverage_values(
    real: torch.Tensor,
    generated: torch.Tensor,
    k: int,
    weights: torch.Tensor,
    block: int = BLOCK // 4,  # as numbers, not bits, they take more memory here
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both for resamplings of the generated images that are given by multiplicities `weights` [R, M]: [R], [R]."""
    real, generated = _centred(real, generated)
    radii = kth_distances(real, k, block)
    hits = torch.zeros(len(generated), dtype=weights.dtype, device=real.device)
    covered = torch.zeros(len(weights), dtype=weights.dtype, device=real.device)
    for start, distances in distance_blocks(real, generated, block):
        inside = distances < radii[start : start + len(distances), None]
        hits += inside.sum(0)
        covered += _covered(iter([inside]), weights)
    return weights.to(hits.device) @ hits / (k * len(generated)), covered / len(real)


def _covered(inside: Iterator[torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
    """How many rows of blocks [<= block, M] of true and false are true for an image that is in the resampling: [R]."""
    total = torch.zeros(len(weights), dtype=weights.dtype)
    for part in inside:
        present = (weights > 0).to(part.device, torch.float32)
        total = total.to(part.device) + ((part.float() @ present.T) > 0).sum(0)
    return total


def _inside(points: torch.Tensor, centres: torch.Tensor, radii: torch.Tensor, block: int) -> float:
    count = sum(int((d <= radii).any(1).sum()) for _, d in distance_blocks(points, centres, block))
    return count / len(points)


def _centred(real: torch.Tensor, generated: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both moved by the real mean: distances stay, and |x|^2 + |y|^2 - 2 x.y loses fewer digits."""
    centre = real.double().mean(0).to(real.dtype)
    return real - centre, generated - centre


def distance_blocks(
    rows: torch.Tensor,
    columns: torch.Tensor,
    block: int,
) -> Iterator[tuple[int, torch.Tensor]]:
    """(first row, distances [<= block, M]) for consecutive blocks of rows."""
    block = max(1, min(block, _LARGEST_BLOCK // len(columns)))
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        yield start, torch.cdist(part, columns, compute_mode="use_mm_for_euclid_dist")
