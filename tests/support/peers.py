"""Peer libraries that metrics are compared with, and weights both sides can make from names alone."""

import sys
import zlib
from types import ModuleType

import numpy as np
import torch


def torchvision() -> ModuleType:
    """torchvision, also where its compiled operators don't fit this torch (a CPU build beside PyPI's wheel)."""
    try:
        import torchvision
    except RuntimeError:
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        # This part only describes those operators to torch and fails without them; no network here uses one.
        sys.modules["torchvision._meta_registrations"] = ModuleType("torchvision._meta_registrations")
        import torchvision
    return torchvision


def torch_fidelity() -> ModuleType:
    """torch-fidelity, which imports torchvision."""
    torchvision()
    import torch_fidelity

    return torch_fidelity


def pytorch_fid_inception(state: dict[str, torch.Tensor] | None) -> torch.nn.Module:
    """pytorch-fid's Inception with these weights, or with none in particular (for names and shapes)."""
    vision = torchvision()
    from pytorch_fid import inception

    inception.load_state_dict_from_url = lambda *args, **kwargs: state
    load = torch.nn.Module.load_state_dict
    vision.models.Inception3.load_state_dict = load if state is not None else lambda self, none: None
    try:
        return inception.fid_inception_v3().eval()
    finally:
        del vision.models.Inception3.load_state_dict


def random_inception_state() -> dict[str, torch.Tensor]:
    """Random weights under the names and shapes of pt_inception-2015-12-05-6726825d.pth."""
    return weights_from_names({k: v.shape for k, v in pytorch_fid_inception(None).state_dict().items()})


def weights_from_names(shapes: dict[str, torch.Size]) -> dict[str, torch.Tensor]:
    """Plausible random weights, a function of each tensor's name and shape: activations stay of order 1."""
    return {name: _tensor(name, tuple(shape)) for name, shape in shapes.items()}


def _tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    noise = np.random.RandomState(zlib.crc32(name.encode())).randn(*shape)
    leaf = name.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.long)
    if leaf in ("running_var", "gamma"):
        return torch.from_numpy(np.abs(1 + 0.1 * noise)).float()
    if leaf == "weight" and len(shape) == 1:
        return torch.from_numpy(1 + 0.1 * noise).float()
    if leaf in ("pos_embed", "cls_token"):
        return torch.from_numpy(0.5 * noise).float()
    if len(shape) < 2:
        return torch.from_numpy(0.1 * noise).float()
    return torch.from_numpy(noise * (2 / np.prod(shape[1:])) ** 0.5).float()
