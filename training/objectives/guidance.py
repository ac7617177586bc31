"""Multi-level noise-perturbed guidance, MNG (GAT, arXiv 2509.24935): the discriminator sees coarse levels through much
noise and the picture through little, so that each level of a generator learns what can be seen at its level."""

from dataclasses import dataclass

import torch

from training.objectives.base import Images

_DECAY = 0.125  # how fast noise falls from the coarsest to the finest level
_LEAST = 0.01  # noise of the finest level


def noise_levels(count: int) -> list[float]:
    """t_k of `count` levels, coarsest first: for four 0.885, 0.76, 0.51, 0.01."""
    coarse = max(count - 1, 1)  # a single level is the finest one
    return [1 - _DECAY ** ((count - 1 - k) / coarse) + _LEAST for k in range(count)]


@dataclass
class LevelNoise:
    """One draw of noise for the levels of a batch; level k becomes (1 - t_k) x_k + n_k."""

    noise: Images  # n_k, coarsest first

    @classmethod
    def draw(cls, like: Images) -> "LevelNoise":
        """Draws for levels such as `like`, all of one size: each level's noise is that of the finer one and more."""
        t = noise_levels(len(like))
        noise = [t[-1] * torch.randn_like(like[-1])]
        for k in range(len(like) - 2, -1, -1):
            a = (1 - t[k]) / (1 - t[k + 1])
            fresh = (t[k] ** 2 - (t[k + 1] * a) ** 2) ** 0.5
            noise.insert(0, a * noise[0] + fresh * torch.randn_like(like[k]))
        return cls(noise)

    def apply(self, images: Images) -> Images:
        """The levels as the discriminator sees them."""
        return [(1 - t) * x + n for t, x, n in zip(noise_levels(len(images)), images, self.noise)]
