"""Perceptual path length (Karras et al. 2019, "A Style-Based Generator Architecture", section 4.1)."""

import numpy as np
import torch

EPSILON = 1e-4


def lerp(a: torch.Tensor, b: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Linear interpolation, for w: a + (b - a) t."""
    return a + (b - a) * t


def slerp(a: torch.Tensor, b: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Spherical interpolation of latents z [N, D] at t [N, 1], on the unit sphere."""
    a = a / a.norm(dim=-1, keepdim=True)
    b = b / b.norm(dim=-1, keepdim=True)
    cosine = (a * b).sum(-1, keepdim=True)
    angle = t * cosine.clamp(-1, 1).acos()
    orthogonal = b - cosine * a
    orthogonal = orthogonal / orthogonal.norm(dim=-1, keepdim=True)
    direction = a * angle.cos() + orthogonal * angle.sin()
    return direction / direction.norm(dim=-1, keepdim=True)


def trimmed_mean(distances: torch.Tensor) -> float:
    """Mean of the values between the 1st and the 99th percentile, both included (outliers dominate a plain mean)."""
    values = distances.double().cpu().numpy()
    low = np.percentile(values, 1, method="lower")
    high = np.percentile(values, 99, method="higher")
    return float(values[(values >= low) & (values <= high)].mean())
