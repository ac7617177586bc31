"""Power-function averages: their profiles, and the combination of some that comes nearest to another one.

A profile says how much the weights of each moment tau count in an average over training so far, 0 to t (eq. 2 of arXiv
2312.02696): p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1). Its length is the standard deviation of tau as a share of
t, sigma_rel (eq. 4). Times are in images; only their ratios matter.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SHORTEST, LONGEST = 0.01, 0.25  # sigma_rel; 1 / sqrt(12) = 0.289 would be the plain mean of all weights
DEFAULT_LENGTHS = (0.05, 0.1)  # the paper's


@dataclass(frozen=True)
class Profile:
    """The profile of one average."""

    length: float  # sigma_rel
    end: float  # t, images


@functools.cache
def exponent(length: float) -> float:
    """gamma of a profile whose sigma_rel is `length`: the root of (gamma + 1) / ((gamma + 2)^2 (gamma + 3)) = length^2
    at which the profile grows with tau."""
    inverse = length**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def decay(length: float, before: int, after: int) -> float:
    """beta, the share of the old average in the new one, when training goes from `before` to `after` images: (1 - 1/t)
    ^ (gamma + 1) for the t-th of equal steps (eq. 3). The average is then exactly the integral of the profile over
    weights that are constant within each step; at the first step it is 0."""
    return (before / after) ** (exponent(length) + 1)


def inner_product(a: Profile, b: Profile) -> float:
    """The integral of the product of two profiles, in closed form."""
    early, late = sorted((a, b), key=lambda p: p.end)
    g, h = exponent(early.length), exponent(late.length)
    return (g + 1) * (h + 1) / (g + h + 1) * (early.end / late.end) ** h / late.end


def coefficients(stored: Sequence[Profile], wanted: Profile) -> tuple[np.ndarray, float]:
    """What to multiply each stored average by, and how far the sum of their profiles is from the wanted one: the norm
    of the difference as a share of the wanted one's (appendix C).

    Least squares under the condition that the coefficients sum to 1, which the paper's only do when many averages are
    stored: with few, all weights of the network would shrink by some per cent.
    """
    if wanted in stored:
        return np.eye(len(stored))[stored.index(wanted)], 0.0
    gram = np.array([[inner_product(a, b) for b in stored] for a in stored])
    aim = np.array([inner_product(a, wanted) for a in stored])
    whole = inner_product(wanted, wanted)
    x = _constrained_minimum(gram, aim)
    error = x @ gram @ x - 2 * x @ aim + whole
    return x, float(np.sqrt(max(error, 0.0) / whole))


def _constrained_minimum(gram: np.ndarray, aim: np.ndarray) -> np.ndarray:
    """The x of sum 1 that minimises x gram x - 2 x aim, by Lagrange's equations. Near profiles make them all but
    singular, hence the scaling to norm 1 and the smallest solution rather than the only one."""
    n = len(aim)
    matrix = np.ones((n + 1, n + 1))
    matrix[:n, :n], matrix[n, n] = gram, 0
    scale = np.append(gram.diagonal() ** -0.5, 1.0)
    found = np.linalg.lstsq(scale[:, None] * matrix * scale, scale * np.append(aim, 1.0), rcond=1e-13)[0]
    x = (scale * found)[:n]
    return x / x.sum()
