"""Penalties on the gradients of a discriminator and on the path length of a generator."""

from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.networks.shared.generator import Generator
from training.objectives.base import Images


def gradient_penalty(judge: Callable[[Images], torch.Tensor], images: Images) -> torch.Tensor:
    """|grad_x D(x)|^2 per image, [N], differentiable (Mescheder et al. 2018, equation 9: R1 at reals, R2 at fakes).

    `judge` gives the logits of images.
    """
    leaves = [x.detach().requires_grad_(True) for x in images]
    with sdpa_kernel(SDPBackend.MATH):  # the only attention kernel that can be differentiated twice
        return squared_gradient(judge(leaves), leaves)


def squared_gradient(logits: torch.Tensor, leaves: Images) -> torch.Tensor:
    """|d logits / d images|^2 per image, [N], differentiable and summed over all levels. The logits [N, 1] must have
    been computed from `leaves` by attention that can be differentiated twice. Levels that D doesn't look at count
    nothing."""
    gradients = torch.autograd.grad(logits.sum(), leaves, create_graph=True, materialize_grads=True)
    return sum((g.square().sum([1, 2, 3]) for g in gradients), start=torch.zeros([], device=logits.device))


def approximate_penalty(
    judge: Callable[[Images], torch.Tensor],
    images: Images,
    logits: torch.Tensor,  # [N, 1], what `judge` said of `images`
    step: float,
) -> torch.Tensor:
    """((D(x) - D(x + s n)) / s)^2 per image, [N], n normal: in the mean over n it is |grad_x D(x)|^2 as the step s goes
    to 0 (GAT, arXiv 2509.24935). It takes first derivatives only, so that fused attention and torch.compile apply.

    `judge` must make the same random choices as it made for `logits`.
    """
    moved = judge([x + step * torch.randn_like(x) for x in images])
    return ((logits - moved) / step).square().mean(1)


def path_length(G: Generator, ws: torch.Tensor) -> torch.Tensor:
    """|J^T y| per image, [N], for styles ws [N, num_ws, w_dim] and normal y (Karras et al. 2020, equation 4): the root
    mean square over the generator's `path_length_styles`."""
    if not ws.requires_grad:  # a mapping without weights
        ws = ws.detach().requires_grad_(True)
    images = G.synthesis(ws, noise_mode="random")
    y = torch.randn_like(images) / (images.shape[2] * images.shape[3]) ** 0.5
    (gradient,) = torch.autograd.grad((images * y).sum(), ws, create_graph=True)
    return (gradient.square().sum((1, 2)) / G.path_length_styles).sqrt()
