"""Network files: plain data in, plain data out. Nothing here knows a network class; see training/networks/files.py.

A file holds the networks `G`, `D`, `G_ema` and `augment_pipe`, each as (kind, config, tensors), and how they came
about. A SHA-256 over all of it is stored with it. Two forms: a pickle, which the field's scripts can open with plain
`pickle.load`, and safetensors with the rest as JSON in its metadata.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import safetensors
import safetensors.torch
import torch

from dnnlib.errors import UserError
from dnnlib.files import atomic_file
from torch_utils.files.forms import MAX_HEADER
from torch_utils.files.pickle_writer import PickleWriter
from torch_utils.files.safe_pickle import DAMAGE, Budget, DamagedFile
from torch_utils.files.torch_files import DTYPES, tensor_from_bytes, tensor_to_bytes

FORMAT_VERSION = 1
NETWORKS = ("G", "D", "G_ema", "augment_pipe")
METADATA_KEY = "styleloom"  # in the safetensors header
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclasses.dataclass
class NetworkRecord:
    """One network as plain data."""

    kind: str  # its name in the registry
    config: dict[str, Any]  # fields of its config dataclass
    tensors: dict[str, torch.Tensor]  # its state_dict

    def plain(self) -> dict[str, Any]:
        """Kind, config and the tensors' names, types and shapes, ready for JSON."""
        described = [[name, _DTYPE_NAMES[t.dtype], list(t.shape)] for name, t in self.tensors.items()]
        return {"kind": self.kind, "config": self.config, "tensors": described}


@dataclasses.dataclass
class NetworkFile:
    """The content of a network file."""

    networks: dict[str, NetworkRecord | None]  # by the names in NETWORKS
    training_set_kwargs: dict[str, Any] | None = None  # what the networks were trained on
    training_config: dict[str, Any] | None = None  # the run's whole config
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)  # who wrote it, from what, after how many kimg
    format_version: int = FORMAT_VERSION  # of the file, until it is migrated

    def plain(self) -> dict[str, Any]:
        """All but the tensors' values, ready for JSON."""
        networks = {name: record.plain() for name, record in self.networks.items() if record is not None}
        return {
            "format_version": self.format_version,
            "networks": networks,
            "training_set_kwargs": self.training_set_kwargs,
            "training_config": self.training_config,
            "provenance": self.provenance,
        }

    def tensor_digests(self) -> dict[tuple[str, str], bytes]:
        """SHA-256 of every tensor's bytes, by (network, tensor), in order."""
        tensors = {
            (name, key): tensor
            for name in NETWORKS
            if (record := self.networks.get(name)) is not None
            for key, tensor in record.tensors.items()
        }
        return dict(zip(tensors, in_threads(lambda t: hashlib.sha256(tensor_to_bytes(t)).digest(), tensors.values())))

    def sha256(self, tensor_digests: dict[tuple[str, str], bytes]) -> str:
        """Hex digest over `plain()` as canonical JSON, then over `tensor_digests()`."""
        digest = hashlib.sha256(json.dumps(self.plain(), sort_keys=True).encode())
        for part in tensor_digests.values():
            digest.update(part)
        return digest.hexdigest()


# From format version n to n + 1: a released version keeps loading for ever. Applied after the digest was checked.
MIGRATIONS: dict[int, Callable[[NetworkFile], NetworkFile]] = {}


def write_pickle(path: str | os.PathLike[str], content: NetworkFile, builder: Callable) -> None:
    """Writes the pickle form. `builder` is the importable function that plain `pickle.load` will call per network."""
    digests = content.tensor_digests()
    rest = {
        "training_set_kwargs": content.training_set_kwargs,
        "training_config": content.training_config,
        "provenance": content.provenance,
        "sha256": content.sha256(digests),
    }
    with atomic_file(path) as file:
        writer = PickleWriter(file)
        writer.begin_dict()
        writer.plain("format_version", FORMAT_VERSION)
        for name in NETWORKS:
            record = content.networks.get(name)
            writer.plain(name)
            if record is None:
                writer.plain(None)
            else:
                writer.begin_call(builder)
                writer.plain(record.kind, record.config)
                writer.begin_dict()
                for key, tensor in record.tensors.items():
                    writer.plain(key)
                    writer.begin_tuple()
                    writer.plain(_DTYPE_NAMES[tensor.dtype], list(tensor.shape))
                    writer.buffer(tensor_to_bytes(tensor), identity=digests[name, key])
                    writer.end_tuple()
                writer.end_dict()
                writer.end_call()
        for key, value in rest.items():
            writer.plain(key, value)
        writer.end_dict()
        writer.finish()


def write_safetensors(path: str | os.PathLike[str], content: NetworkFile) -> None:
    """Writes the safetensors form: tensors are named `G_ema/...`, the rest is JSON in the metadata."""
    tensors = {
        f"{name}/{key}": tensor.detach().cpu().clone(memory_format=torch.contiguous_format)  # it refuses shared memory
        for name, record in content.networks.items()
        if record is not None
        for key, tensor in record.tensors.items()
    }
    metadata = {METADATA_KEY: json.dumps(content.plain() | {"sha256": content.sha256(content.tensor_digests())})}
    with atomic_file(path) as file:
        file.write(safetensors.torch.save(tensors, metadata))


def record_from_pickle(budget: Budget, kind: Any, config: Any, tensors: Any) -> NetworkRecord:
    """What the reader calls where plain `pickle.load` would call `builder`."""
    if not (isinstance(kind, str) and isinstance(config, dict) and isinstance(tensors, dict)):
        raise ValueError("a network that is not (kind, config, tensors)")
    budget.spend(sum(memoryview(data).nbytes for _dtype, _shape, data in tensors.values()))
    return NetworkRecord(kind, config, decode_tensors(tensors))


def decode_tensors(tensors: dict[str, Any]) -> dict[str, torch.Tensor]:
    """{name: (dtype, shape, bytes)} -> {name: tensor}."""
    parts = ((data, DTYPES[dtype], shape) for dtype, shape, data in tensors.values())
    return dict(zip(tensors, in_threads(lambda part: tensor_from_bytes(*part), parts)))


def in_threads(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """`work` of every item, in order, on all cores: copying and hashing large buffers leave Python's lock alone."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, items))


def content_from_pickle(data: dict[str, Any], source: str) -> NetworkFile:
    """The dict that a pickle of ours holds -> checked content. Raises UserError (version, structure, digest)."""
    _known_version(data, source)
    data = dict(data)
    networks = {name: data.pop(name, None) for name in NETWORKS}
    if any(not isinstance(record, (NetworkRecord, type(None))) for record in networks.values()):
        raise DamagedFile(f"{source} is damaged: a network in it is no network")
    return _checked(networks, data, source)


def read_safetensors(path: str | os.PathLike[str]) -> NetworkFile:
    """Reads the safetensors form. Raises UserError if it is damaged or was not written by this project."""
    source = str(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
            if text is None:
                raise UserError(f"{source} has no {METADATA_KEY!r} metadata: it does not say which network it holds")
            if len(text) > MAX_HEADER:
                raise DamagedFile(f"{source} describes itself at a length of more than {MAX_HEADER:,} characters")
            data = json.loads(text)
            _known_version(data, source)
            described = data.pop("networks")
            if set(described) - set(NETWORKS):
                raise DamagedFile(f"{source} is damaged: unknown networks")
            names = [f"{name}/{key}" for name, one in described.items() if one for key, *_ in one["tensors"]]
            if sorted(names) != sorted(file.keys()):  # before any is read, or a name given often is read as often
                raise DamagedFile(f"{source} is damaged: its tensors are not those of its networks")
            networks = {name: _described_record(file, name, described.get(name)) for name in NETWORKS}
    except UserError:
        raise
    except (safetensors.SafetensorError, *DAMAGE) as e:
        raise DamagedFile(f"{source} is damaged: {str(e)[:120]}") from e
    return _checked(networks, data, source)


def _described_record(file: Any, name: str, described: Any) -> NetworkRecord | None:
    if described is None:
        return None
    tensors = {key: file.get_tensor(f"{name}/{key}") for key, _dtype, _shape in described["tensors"]}
    kind, config = described["kind"], described["config"]
    if not (isinstance(kind, str) and isinstance(config, dict)):
        raise ValueError("a network that is not (kind, config, tensors)")
    return NetworkRecord(kind, config, tensors)


def _known_version(data: Any, source: str) -> None:
    version = data.get("format_version") if isinstance(data, dict) else None
    if type(version) is not int or version < 1:
        raise DamagedFile(f"{source} is damaged: it names no format version")
    if version > FORMAT_VERSION:
        raise UserError(
            f"{source} has format version {version}, this program reads up to {FORMAT_VERSION}: update StyleLoom"
        )


def _checked(networks: dict[str, NetworkRecord | None], rest: dict[str, Any], source: str) -> NetworkFile:
    stored = rest.pop("sha256", None)
    known = {"format_version", "training_set_kwargs", "training_config", "provenance"}
    if rest.keys() != known:
        raise DamagedFile(f"{source} is damaged: its entries are {', '.join(sorted(map(str, rest)))[:120]}")
    tables = [rest["provenance"], *(rest[name] or {} for name in ("training_set_kwargs", "training_config"))]
    if not all(isinstance(table, dict) for table in tables):
        raise DamagedFile(f"{source} is damaged: what it says of its training is no table")
    content = NetworkFile(networks, **rest)
    try:
        digest = content.sha256(content.tensor_digests())
    except DAMAGE as e:
        raise DamagedFile(f"{source} is damaged: {str(e)[:120]}") from e
    if digest != stored:
        raise DamagedFile(
            f"{source} is damaged: its content has SHA-256 {digest[:16]}..., it says {str(stored)[:16]}..."
        )
    for step in range(content.format_version, FORMAT_VERSION):
        content = MIGRATIONS[step](content)
    return dataclasses.replace(content, format_version=FORMAT_VERSION)
