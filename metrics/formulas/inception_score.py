"""Inception score (Salimans et al. 2016, "Improved Techniques for Training GANs", section 4)."""

import numpy as np
import torch

SPLITS = 10


def inception_score(probs: torch.Tensor, splits: int = SPLITS) -> tuple[float, float]:
    """(mean, standard deviation) over consecutive splits of exp(E KL(p(y|x) || p(y))), natural logarithms.

    `probs` [N, classes] are class probabilities in the order of generation; N >= splits.
    """
    if len(probs) < splits:
        raise ValueError(f"the inception score needs at least {splits} images")
    scores = []
    for part in np.array_split(np.arange(len(probs)), splits):
        p = probs[int(part[0]) : int(part[-1]) + 1].double()
        q = p.mean(0, keepdim=True)
        divergence = torch.special.xlogy(p, p) - torch.special.xlogy(p, q)
        scores.append(float(divergence.sum(1).mean().exp()))
    return float(np.mean(scores)), float(np.std(scores))
