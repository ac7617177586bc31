"""From seeds to latents and from networks to pictures, by the field's rules."""

import io
import math
import re
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np
import torch

from dnnlib.errors import UserError
from training.networks.shared.generator import Generator, NoiseMode

MAX_PROJECTED = 256 * 2**20  # bytes that the styles of a projection may unpack to
BATCH = 16  # images that go through the network together, where nobody asks for more


def parse_seeds(text: str, option: str = "--seeds") -> list[int]:
    """`1,4,10-12` -> [1, 4, 10, 11, 12]. UserError, naming the option, for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if match is None:
            raise UserError(f"{option}: {part!r} is neither a number nor a range such as 100-105")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last >= 2**32:
            raise UserError(f"{option}: {part!r} is no range of numbers below 2^32")
        seeds.extend(range(first, last + 1))
    return seeds


def latent(G: Generator, seed: int) -> torch.Tensor:
    """z [1, z_dim] of a seed."""
    return latents(G, [seed])


def latents(G: Generator, seeds: Sequence[int]) -> torch.Tensor:
    """z [N, z_dim] of seeds: numpy's RandomState, as in the StyleGAN2-ADA family, or torch's generator for networks
    that came from StyleNAT checkpoints, so that known seeds give the known pictures."""
    if G.cfg.seed_rule == "torch":
        return torch.cat([torch.randn(1, G.z_dim, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    state = np.random.RandomState()  # a new one per seed would take ten times as long as its numbers
    z = np.empty([len(seeds), G.z_dim], np.float32)
    for row, seed in zip(z, seeds):
        state.seed(seed)
        row[:] = state.randn(G.z_dim)
    return torch.from_numpy(z)


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


def device_of(G: Generator) -> torch.device:
    """Where the network lives."""
    return next(G.parameters()).device


@torch.no_grad()
def styles_of_seeds(
    G: Generator,
    seeds: Sequence[int],
    c: torch.Tensor,  # [1, c_dim] for all, or [N, c_dim]
    truncation_psi: float = 1.0,
) -> torch.Tensor:
    """ws [N, num_ws, w_dim] on the network's device."""
    z = latents(G, seeds)
    labels = c.expand(len(z), -1)
    return G.mapping(z.to(device_of(G)), labels.to(device_of(G)), truncation_psi=truncation_psi)


@torch.no_grad()
def images_of_styles(
    G: Generator,
    ws: torch.Tensor,  # [N, num_ws or more, w_dim]
    noise_mode: NoiseMode = "const",
    noise_seeds: Sequence[int] | None = None,  # one per image, for random noise; None: 0, 1, 2, ...
    batch: int = BATCH,
) -> torch.Tensor:
    """uint8 [N, C, H, W] on the CPU.

    An image doesn't depend on its batch but for rounding: at most one grey level in rare pixels. So random noise,
    keyed by a seed per image, goes through the network image by image.
    """
    ws = ws.to(device_of(G))
    if noise_mode != "random":
        return torch.cat(
            [G.space.to_pixels(G.synthesis(part, noise_mode=noise_mode)).cpu() for part in ws.split(batch)]
        )
    keys = range(len(ws)) if noise_seeds is None else noise_seeds
    return torch.cat([G.space.to_pixels(_with_noise_of(G, w[None], key)).cpu() for w, key in zip(ws, keys)])


def _with_noise_of(G: Generator, ws: torch.Tensor, seed: int) -> torch.Tensor:
    device = device_of(G)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return G.synthesis(ws, noise_mode="random")


def image_of_seed(
    G: Generator,
    seed: int,
    c: torch.Tensor,  # [1, c_dim]
    truncation_psi: float = 1.0,
    noise_mode: NoiseMode = "const",
) -> torch.Tensor:
    """uint8 [C, H, W]. Random noise is keyed by the seed too: the same seed gives the same image."""
    return images_of_styles(G, styles_of_seeds(G, [seed], c, truncation_psi), noise_mode, [seed])[0]


def load_projected_w(G: Generator, path: str) -> torch.Tensor:
    """`w` [N, num_ws or more, w_dim] of an .npz file that a projection wrote. UserError if it doesn't fit G."""
    try:
        w = _array_in(path, "w")
    except FileNotFoundError:
        raise UserError(f"--projected-w: {path} does not exist") from None
    except (KeyError, ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as e:
        raise UserError(f"--projected-w: {path} is no .npz file with an array w ({str(e)[:120]})") from e
    if w.ndim != 3 or w.shape[1] < G.num_ws or w.shape[2] != G.w_dim or not np.isfinite(w).all():
        raise UserError(f"--projected-w: w is {w.shape}; this network wants finite [N, {G.num_ws} or more, {G.w_dim}]")
    return torch.from_numpy(w).float()


def _array_in(path: str, name: str) -> np.ndarray:
    """A float array of an .npz file. ValueError if it is another one, or unpacks to more than MAX_PROJECTED bytes."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{name}.npy")
        if info.file_size > MAX_PROJECTED:
            raise ValueError(f"it unpacks to {info.file_size:,} bytes, more than {MAX_PROJECTED:,}")
        stream = io.BytesIO(archive.read(info))
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    if dtype.kind != "f" or math.prod(shape) * dtype.itemsize != stream.getbuffer().nbytes - stream.tell():
        raise ValueError("its content is not what its header says")
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False)
