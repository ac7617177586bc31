"""Saving and loading networks. Loading rebuilds each network from its registered kind and config, then checks and
copies its tensors by name; no code from the file runs."""

import dataclasses
import functools
import importlib.metadata
import mmap
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dnnlib import cache
from dnnlib.config import from_dict, to_dict
from dnnlib.errors import ConfigError, UserError
from dnnlib.files import map_file
from torch_utils.files import persistence
from torch_utils.files.forms import form_of
from torch_utils.files.persistence import NETWORKS, NetworkFile, NetworkRecord
from torch_utils.files.safe_pickle import DAMAGE, Budget, Constant, Constructor, DamagedFile, Reader
from torch_utils.files.torch_files import plain_constructors, read_legacy, read_zip
from torch_utils.meta_init import build_with, build_within
from training.augment.pipe import AugmentConfig, AugmentPipe
from training.networks import registry
from training.networks.official import gat, r3gan, stylegan_pickle, stylenat

AUGMENT_KIND = "augment_pipe"
_NAMED = 8  # how many tensors an error names


def save(
    path: str | os.PathLike[str],
    networks: Mapping[str, nn.Module | None],  # any of G, D, G_ema, augment_pipe
    training_config: Any = None,  # the run's config: a dataclass or plain data
    training_set_kwargs: Mapping[str, Any] | None = None,  # what the networks were trained on, as plain data
    provenance: Mapping[str, Any] | None = None,  # more about how they came about, e.g. {"kimg": 200}
) -> None:
    """Writes a network file, atomically; the suffix `.safetensors` chooses that form, any other one the pickle.

    Raises UserError if the place can't be written, ValueError for unknown names.
    """
    if set(networks) - set(NETWORKS):
        raise ValueError(f"a network file holds {', '.join(NETWORKS)}, not {sorted(set(networks) - set(NETWORKS))}")
    records = {name: None if module is None else record_of(module) for name, module in networks.items()}
    origin = {"program": f"StyleLoom {_version()}", "torch": str(torch.__version__)}
    content = NetworkFile(
        records,
        training_set_kwargs=plain(training_set_kwargs),
        training_config=plain(training_config),
        provenance=origin | plain(provenance or {}),
    )
    write(path, content)


def write(path: str | os.PathLike[str], content: NetworkFile) -> None:
    """Writes plain content in the form that the path's suffix names. Raises UserError if the place can't be written."""
    if Path(path).suffix == ".safetensors":
        persistence.write_safetensors(path, content)
    else:
        persistence.write_pickle(path, content, network_from_record)


def load(
    path_or_url: str | os.PathLike[str],
    names: Iterable[str] = NETWORKS,  # which networks to build; the others come as None
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Reads a network file of ours (pickle or safetensors), an official pickle of StyleGAN2-ADA, Styleformer or R3GAN,
    or a StyleNAT or GAT checkpoint, from a path or URL.

    Returns G, D, G_ema and augment_pipe (modules in evaluation mode without gradients, or None),
    training_set_kwargs, training_config and provenance.
    Raises UserError, one line, whatever is wrong with the file.
    """
    content = read(path_or_url)
    result: dict[str, Any] = dict.fromkeys(NETWORKS)
    for name in names:
        record = content.networks.get(name)
        if record is not None:
            result[name] = build_record(record, f"{path_or_url}: {name}").to(device)
    return result | {
        "training_set_kwargs": content.training_set_kwargs,
        "training_config": content.training_config,
        "provenance": content.provenance,
    }


def read(path_or_url: str | os.PathLike[str]) -> NetworkFile:
    """The plain content of a network file of any known format; builds no network. Raises UserError."""
    source = str(path_or_url)
    content = _read(cache.fetch(source) if cache.is_url(source) else Path(path_or_url), source)
    _separate(content)
    return content


def _separate(content: NetworkFile) -> None:
    """Gives every tensor memory of its own: a file stores equal ones once, but training G must not move G_ema."""
    taken = set()
    for record in filter(None, content.networks.values()):
        for name, tensor in record.tensors.items():
            place = tensor.untyped_storage().data_ptr()
            if place in taken:
                record.tensors[name] = tensor.clone()
            taken.add(place)


def _official_checkpoint(data: Any, source: str) -> NetworkFile:
    return (gat if gat.is_content(data) else stylenat).content(data, source)


def _read(path: Path, source: str) -> NetworkFile:
    try:
        data = map_file(path)
    except FileNotFoundError:
        raise UserError(f"network file {source} does not exist") from None
    form = form_of(data)
    if form == "safetensors":
        return persistence.read_safetensors(path)
    if form == "zip":
        return _official_checkpoint(read_zip(data, source), source)
    if form == "legacy":
        return _official_checkpoint(read_legacy(data, source), source)
    if form == "pickle":
        return _read_pickle(data, source)
    raise UserError(f"{source} is no network file: neither a pickle, nor .safetensors, nor a .pt of torch.save")


def _read_pickle(data: mmap.mmap, source: str) -> NetworkFile:
    builder = f"{network_from_record.__module__}.{network_from_record.__qualname__}"
    budget = Budget(len(data), source)
    allowed: dict[str, Constructor | Constant] = plain_constructors(source, budget)
    allowed |= stylegan_pickle.CONSTRUCTORS | r3gan.CONSTRUCTORS
    own = {builder: functools.partial(persistence.record_from_pickle, budget)}
    result = Reader(data, allowed | own, source, budget=budget).load()
    if not isinstance(result, dict):
        raise DamagedFile(f"{source} is no network file: it holds a {type(result).__name__}")
    if "format_version" in result:
        return persistence.content_from_pickle(result, source)
    return (r3gan if r3gan.is_content(result) else stylegan_pickle).content(result, source)


def record_of(module: nn.Module) -> NetworkRecord:
    """A network with its `.cfg` as plain data. The tensors are the module's own, not copies."""
    cfg: Any = module.cfg
    config = to_dict(cfg)
    kind = config.pop("kind", AUGMENT_KIND)
    return NetworkRecord(kind, config, {name: t.detach() for name, t in module.state_dict().items()})


def network_from_record(kind: str, config: dict[str, Any], tensors: dict[str, Any]) -> nn.Module:
    """What plain `pickle.load` calls for each network of our files: a module in evaluation mode.

    The name and the arguments of this function are part of the file format.
    """
    record = NetworkRecord(kind, config, persistence.decode_tensors(tensors))
    return build_record(record, f"network {kind!r}")


def build_record(record: NetworkRecord, source: str) -> nn.Module:
    """Rebuilds a network and gives it its tensors. Raises UserError that names unknown config fields, kinds and every
    tensor that is missing, left over or of the wrong shape or type. Draws no random numbers from the caller's stream.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            module = build_with(lambda: _fresh(record), record.tensors)
            if module is None:  # rebuilt the plain way, which also finds out what doesn't fit
                module = build_within(lambda: _fresh(record), record.tensors)
                load_tensors(module, record.tensors, source)
        except ConfigError as e:
            raise UserError(f"{source}: {e}; the file may come from another version or need --import=FILE.py") from e
        except UserError as e:
            raise UserError(f"{source}: {str(e).removeprefix(f'{source}: ')}") from e
        except DAMAGE as e:
            raise UserError(f"{source} can't be rebuilt from its config: {str(e)[:160]}") from e
    return module.eval().requires_grad_(False)


def _fresh(record: NetworkRecord) -> nn.Module:
    if record.kind == AUGMENT_KIND:
        return AugmentPipe(from_dict(AugmentConfig, record.config))
    return registry.build(registry.config_from_dict(record.config | {"kind": record.kind}))


def load_tensors(module: nn.Module, tensors: Mapping[str, torch.Tensor], source: str) -> None:
    """Copies tensors into a module; names and shapes must be exactly the module's own. Raises UserError."""
    own = module.state_dict()
    problems = [f"tensor {name} is missing" for name in own.keys() - tensors.keys()]
    problems += [f"tensor {name} belongs nowhere" for name in tensors.keys() - own.keys()]
    for name in own.keys() & tensors.keys():
        if own[name].shape != tensors[name].shape:
            problems.append(f"tensor {name} has shape {_shape(tensors[name])} instead of {_shape(own[name])}")
        elif own[name].dtype != tensors[name].dtype:
            problems.append(f"tensor {name} has type {tensors[name].dtype} instead of {own[name].dtype}")
    if problems:
        more = f" and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise UserError(f"{source}: {'; '.join(sorted(problems)[:_NAMED])}{more}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def plain(value: Any) -> Any:
    """Dataclasses, tuples, mappings and scalars -> what JSON has. Raises TypeError for anything else."""
    if dataclasses.is_dataclass(value):
        return plain(to_dict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} is no plain data")


def _version() -> str:
    try:
        return importlib.metadata.version("styleloom")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
