"""Penalties on the gradients of a discriminator and on the path length of a generator."""

from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.networks.shared.generator import Generator
from training.objectives.base import Images


def gradient_penalty(judge: Callable[[Images], torch.Tensor], images: Images) -> torch.Tensor:
    """|grad_x D(x)|^2 per image, [N], differentiable (Mescheder et al. 2018, equation 9: R1 at reals, R2 at fakes).

    `judge` gives the logits of images; the squares are summed over all levels.
    """
    leaves = [x.detach().requires_grad_(True) for x in images]
    with sdpa_kernel(SDPBackend.MATH):  # the only attention kernel that can be differentiated twice
        gradients = torch.autograd.grad(judge(leaves).sum(), leaves, create_graph=True)
    return sum((g.square().sum([1, 2, 3]) for g in gradients), start=torch.zeros([], device=images[0].device))


def path_length(G: Generator, ws: torch.Tensor) -> torch.Tensor:
    """|J^T y| per image, [N], for styles ws [N, num_ws, w_dim] and normal y (Karras et al. 2020, equation 4)."""
    images = G.synthesis(ws, noise_mode="random")
    y = torch.randn_like(images) / (images.shape[2] * images.shape[3]) ** 0.5
    (gradient,) = torch.autograd.grad((images * y).sum(), ws, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()
