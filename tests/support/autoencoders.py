"""Small autoencoders with random weights, saved by diffusers itself."""

import sys
from pathlib import Path

import torch

from training.networks.autoencoder import _diffusers


def save_autoencoder(folder: Path, seed: int = 0, **changes) -> Path:
    """Pictures of 3 channels to latents of 4, half as high and wide; weights of a seed."""
    model_class = _diffusers().AutoencoderKL
    torch.manual_seed(seed)
    sizes = {
        "block_out_channels": (4, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "latent_channels": 4,
        "norm_num_groups": 2,
        "mid_block_add_attention": False,
        "shift_factor": 0.25,
        "scaling_factor": 0.5,
    }
    model_class(**(sizes | changes)).save_pretrained(folder)
    return folder


def original(folder: Path):
    """The library's own model."""
    assert "diffusers" in sys.modules
    return _diffusers().AutoencoderKL.from_pretrained(folder).eval()
