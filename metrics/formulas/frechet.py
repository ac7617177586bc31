"""Fréchet distance between two Gaussians fitted to features (Heusel et al. 2017, "GANs Trained by a Two Time-Scale
Update Rule", eq. 6; Dowson & Landau 1982)."""

import dataclasses

import numpy as np
import torch


@dataclasses.dataclass(frozen=True)
class Moments:
    """Mean [D] and unbiased covariance [D, D] of `count` feature vectors, float64 on the CPU."""

    count: int
    mean: torch.Tensor
    cov: torch.Tensor

    def biased(self) -> "Moments":
        """The same with the covariance that divides by the count, not by one less."""
        return dataclasses.replace(self, cov=self.cov * ((self.count - 1) / self.count))


class MomentAccumulator:
    """Collects moments over chunks of features in float64.

    Sums are taken around the first chunk's mean, so that a large common offset does not cost digits.
    """

    def __init__(self) -> None:
        self._count = 0
        self._shift: torch.Tensor | None = None
        self._sum = self._outer = torch.zeros(())

    def append(self, features: torch.Tensor) -> None:
        """Adds rows [N, D] of any float type and device."""
        rows = features.double()
        if self._shift is None:
            self._shift = rows.mean(0)
            self._sum = torch.zeros_like(self._shift)
            self._outer = torch.zeros(len(self._shift), len(self._shift), dtype=torch.float64, device=rows.device)
        rows = rows - self._shift
        self._count += len(rows)
        self._sum += rows.sum(0)
        self._outer.addmm_(rows.T, rows)

    def moments(self) -> Moments:
        """Mean and covariance of everything appended; needs at least 2 rows."""
        if self._shift is None or self._count < 2:
            raise ValueError("a covariance needs at least 2 feature vectors")
        mean = self._sum / self._count
        cov = (self._outer - self._count * torch.outer(mean, mean)) / (self._count - 1)
        return Moments(self._count, (mean + self._shift).cpu(), cov.cpu())


def moments_of(features: torch.Tensor, chunk: int = 4096) -> Moments:
    """Moments of features [N, D]."""
    accumulator = MomentAccumulator()
    for rows in features.split(chunk):
        accumulator.append(rows)
    return accumulator.moments()


def frechet_distance(a: Moments, b: Moments) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).

    The trace of the root is the sum of the square roots of the eigenvalues of F S2 F^T, where S1 = F^T F: a symmetric
    problem with non-negative eigenvalues, whatever the rank of the two covariances (fewer samples than dimensions).
    The covariance of lower rank is factored, which keeps the null space, whose eigenvalues would be the roots of
    rounding errors, out of the sum.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features of {len(a.mean)} and {len(b.mean)} dimensions can't be compared")
    low, high = sorted((a, b), key=lambda m: m.count)
    factor = _factor(low)
    inner = factor @ high.cov.numpy() @ factor.T
    eigenvalues = np.linalg.eigvalsh((inner + inner.T) / 2)
    root_trace = float(np.sqrt(eigenvalues.clip(min=0)).sum())
    offset = (a.mean - b.mean).square().sum()
    return float(offset + a.cov.trace() + b.cov.trace()) - 2 * root_trace


def _factor(m: Moments) -> np.ndarray:
    """F [rank, D] with F^T F = covariance: by Cholesky when it has full rank, else by its eigenvectors."""
    cov = m.cov.numpy()
    if m.count > 2 * len(cov):
        try:
            factor = np.linalg.cholesky(cov).T
            if factor.diagonal().min() > 1e-6 * factor.diagonal().max():
                return factor
        except np.linalg.LinAlgError:
            pass  # rank-deficient in spite of enough samples (constant or linearly dependent features)
    values, vectors = np.linalg.eigh(cov)
    keep = values > len(cov) * np.finfo(np.float64).eps * values[-1]
    return np.sqrt(values[keep])[:, None] * vectors[:, keep].T
