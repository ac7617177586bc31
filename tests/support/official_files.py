"""Tiny files in the official formats (tests/data/official), with what the original programs computed from them.

They are stored compressed; the Python source inside the pickles raises when it is executed.
"""

import functools
import lzma
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parents[1] / "data" / "official"
PICKLES = ["official_sf_0.pkl", "official_sf_1.pkl", "official_sg_0.pkl", "official_sg_1.pkl"]
CHECKPOINTS = ["official_stylenat_new.pt", "official_stylenat_old.pt"]
GAT = ["official_gat.pt"]
R3GAN = ["official_r3gan_0.pkl"]
FILES = PICKLES + CHECKPOINTS + R3GAN + GAT


@functools.cache
def content(name: str) -> bytes:
    return lzma.decompress((FOLDER / f"{name}.xz").read_bytes())


def unpack(name: str, folder: Path) -> Path:
    """Writes the file into `folder`; returns its path."""
    path = folder / name
    path.write_bytes(content(name))
    return path


def expected(name: str) -> dict[str, torch.Tensor]:
    with np.load(FOLDER / f"{name.partition('.')[0]}.npz") as data:
        return {key: torch.from_numpy(data[key]) for key in data.files}
