"""Golden tensors computed by the original programs, and the error measure that tests hold against them."""

from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parents[1] / "data" / "golden"


def load(name: str) -> dict[str, torch.Tensor]:
    """All tensors of tests/data/golden/NAME.npz, by key."""
    with np.load(FOLDER / f"{name}.npz") as data:
        return {k: torch.from_numpy(data[k]) for k in data.files}


def state(golden: dict[str, torch.Tensor], prefix: str = "state/") -> dict[str, torch.Tensor]:
    """The entries under `prefix`, without it: a state_dict."""
    return {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}


def rel_err(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest absolute difference over the largest absolute expected value."""
    a, b = actual.detach().double(), expected.detach().double()
    assert a.shape == b.shape, f"{tuple(a.shape)} is not {tuple(b.shape)}"
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-30))
