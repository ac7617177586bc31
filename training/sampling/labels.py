"""Labels to sample with: classes, vectors, and vectors drawn from those that a network was trained on."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dnnlib.errors import UserError
from training.dataset import open_dataset
from training.networks.shared.generator import Generator


def vectors_trained_on(loaded: Mapping[str, Any]) -> torch.Tensor | None:
    """Label vectors [M, c_dim] that a network saw, for what `networks.load` returns; None where its labels are classes.

    They are in the files that training writes; for others the data set is looked at, if it is where the file says.
    """
    trained_on = loaded.get("training_set_kwargs") or {}
    if "labels" in trained_on:
        found = (trained_on["labels"] or {}).get("vectors")
        return None if found is None else torch.tensor(found, dtype=torch.float32)
    try:
        examples = open_dataset(str(trained_on["path"]), use_labels=True).label_examples()
    except (UserError, KeyError):
        return None
    return None if examples is None or "vectors" not in examples else torch.tensor(examples["vectors"])


def drawn_labels(G: Generator, seeds: Sequence[int]) -> torch.Tensor:
    """A label [N, c_dim] per seed, always the same one, of those that the network was trained on. For networks whose
    labels are vectors."""
    assert G.label_vectors is not None
    return G.label_vectors[[np.random.RandomState(seed).randint(len(G.label_vectors)) for seed in seeds]]


def vector_labels(G: Generator, vectors: Sequence[Sequence[float]], option: str) -> torch.Tensor:
    """Given labels as [N, c_dim]. UserError, naming the option, if the network takes none of such a length."""
    if not G.c_dim:
        raise UserError(f"{option}: this network is unconditional; leave it out")
    wrong = next((v for v in vectors if len(v) != G.c_dim), None)
    if wrong is not None:
        raise UserError(f"{option}: a label of {len(wrong)} numbers, but this network takes {G.c_dim}")
    return torch.tensor([list(v) for v in vectors], dtype=torch.float32)


def parse_vector(text: str, option: str) -> list[float]:
    """`0.1,0.3` -> [0.1, 0.3]; UserError unless all are finite numbers."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option}: {text[:80]!r} is no list of numbers such as 0.1,0.3") from None
    if not all(map(math.isfinite, values)):
        raise UserError(f"{option}: {text[:80]!r} is not finite")
    return values


def read_vectors(path: str) -> list[list[float]]:
    """Labels of a file: a JSON list of lists, or a line of numbers, separated by commas or blanks, for each label."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"--label-file: cannot read {path}: {e}") from e
    option = f"--label-file={path}"
    if text.lstrip().startswith("["):
        try:
            lines = [",".join(map(str, row)) for row in json.loads(text)]
        except (ValueError, TypeError):
            raise UserError(f"{option} is no JSON list of lists of numbers") from None
    else:
        lines = [",".join(line.replace(",", " ").split()) for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{option} is empty")
    return [parse_vector(line, option) for line in lines]
