"""Small generators for tests, whose noise and styles have visible effects, network files that hold them, and small
autoencoders, saved by diffusers itself."""

from pathlib import Path

import torch

from training import networks
from training.networks.autoencoder import _diffusers
from training.networks.generators.styleformer import StyleformerConfig
from training.networks.shared.generator import Generator

SMALL = {"z_dim": 16, "w_dim": 16, "mapping_layers": 2, "depth": 8}


def small_generator(seed: int = 0, **changes) -> Generator:
    """A Styleformer of random weights for 32x32 images, w_avg and noise strengths set as training would."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        cfg = StyleformerConfig(**{**SMALL, "g_dict": [16, 16, 8], "num_layers": [1, 2, 1], **changes})
        return lively(networks.build(cfg))


def lively(G: Generator) -> Generator:
    for name, p in G.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(p, 0.3)
    z = torch.randn(256, G.z_dim)
    c = torch.eye(G.c_dim)[torch.arange(256) % G.c_dim] if G.c_dim else None
    G.mapping.w_avg.copy_(G.mapping(z, c)[:, 0].mean(0).detach())
    return G.eval().requires_grad_(False)


def network_file(folder: Path, G: Generator, name: str = "net.pkl") -> str:
    networks.save(folder / name, {"G_ema": G})
    return str(folder / name)


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


def original_autoencoder(folder: Path):
    """The library's own model of an autoencoder's folder."""
    return _diffusers().AutoencoderKL.from_pretrained(folder).eval()
