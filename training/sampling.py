"""From seeds to latents and from networks to pictures, by the field's rules."""

import re

import numpy as np
import torch

from dnnlib.errors import UserError
from training.networks.generator import Generator, NoiseMode
from training.pictures import to_uint8


def parse_seeds(text: str) -> list[int]:
    """`1,4,10-12` -> [1, 4, 10, 11, 12]. UserError for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if match is None:
            raise UserError(f"--seeds: {part!r} is neither a number nor a range such as 100-105")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last >= 2**32:
            raise UserError(f"--seeds: {part!r} is no range of numbers below 2^32")
        seeds.extend(range(first, last + 1))
    return seeds


def latent(G: Generator, seed: int) -> torch.Tensor:
    """z [1, z_dim] of a seed: numpy's RandomState, as in the StyleGAN2-ADA family, or torch's generator for networks
    that came from StyleNAT checkpoints, so that known seeds give the known pictures."""
    if G.cfg.seed_rule == "torch":
        return torch.randn(1, G.z_dim, generator=torch.Generator().manual_seed(seed))
    return torch.from_numpy(np.random.RandomState(seed).randn(1, G.z_dim)).float()


def class_label(G: Generator, index: int | None) -> torch.Tensor:
    """One-hot label [1, c_dim] of class `index`; [1, 0] for an unconditional network. UserError if they don't fit."""
    if not G.c_dim:
        if index is not None:
            raise UserError("--class: this network is unconditional; leave --class out")
        return torch.zeros([1, 0])
    if index is None:
        raise UserError(f"this network is conditional: say which class, --class=0 to --class={G.c_dim - 1}")
    if not 0 <= index < G.c_dim:
        raise UserError(f"--class={index} does not exist; this network knows 0 to {G.c_dim - 1}")
    return torch.eye(G.c_dim)[[index]]


@torch.no_grad()
def image_of_seed(
    G: Generator,
    seed: int,
    c: torch.Tensor,  # [1, c_dim]
    truncation_psi: float = 1.0,
    noise_mode: NoiseMode = "const",
) -> torch.Tensor:
    """uint8 [C, H, W]. Random noise is keyed by the seed too: the same seed gives the same image."""
    device = next(G.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        image = G(latent(G, seed).to(device), c.to(device), truncation_psi=truncation_psi, noise_mode=noise_mode)
    return to_uint8(image[0]).cpu()


def load_projected_w(G: Generator, path: str) -> torch.Tensor:
    """`w` [N, num_ws or more, w_dim] of an .npz file that a projection wrote. UserError if it doesn't fit G."""
    try:
        with np.load(path, allow_pickle=False) as data:
            w = data["w"]
    except FileNotFoundError:
        raise UserError(f"--projected-w: {path} does not exist") from None
    except (KeyError, ValueError, OSError) as e:
        raise UserError(f"--projected-w: {path} is no .npz file with an array w ({e})") from e
    if w.ndim != 3 or w.shape[1] < G.num_ws or w.shape[2] != G.w_dim or not np.isfinite(w).all():
        raise UserError(f"--projected-w: w is {w.shape}; this network wants finite [N, {G.num_ws} or more, {G.w_dim}]")
    return torch.from_numpy(w).float()
