"""Reads what `torch.save` writes (zip and legacy streams) and tensors inside pickles, executing nothing.

Layouts: torch/serialization.py of PyTorch. Every size is checked against the bytes that are there.
"""

import functools
import io
import sys
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from dnnlib.errors import UserError
from torch_utils.files.safe_pickle import (
    DAMAGE,
    MAX_NAME,
    Budget,
    Constant,
    Constructor,
    DamagedFile,
    Reader,
    Stateful,
    UnsafeFile,
    checked_key,
)

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a legacy stream
LEGACY_PROTOCOL = 1001
_MAX_ENTRIES = 100_000
_MAX_SIDES = 64  # dimensions of a tensor
_MAX_SIDE = 2**48

DTYPES: dict[str, torch.dtype] = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "int32": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
_STORAGES = {
    **{"DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16"},
    **{"LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8"},
    **{"ByteStorage": "uint8", "BoolStorage": "bool"},
}

Allowed = dict[str, Constructor | Constant]
_NO_TENSORS: Allowed = {
    f"torch._utils.{name}": lambda *_: None for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")
}


class Storage:
    """The elements of one stored tensor or of several that share memory."""

    def __init__(self, dtype: torch.dtype, data: Any) -> None:
        self.elements = tensor_from_bytes(data, dtype, [len(memoryview(data).cast("B")) // dtype.itemsize])


def tensor_from_bytes(data: Any, dtype: torch.dtype, shape: list[int]) -> torch.Tensor:
    """Little-endian bytes -> tensor of `shape`. It shares the memory of `data` where that is writable and aligned.

    Raises ValueError if the count of bytes does not fit.
    """
    view = memoryview(data).cast("B")
    if _product(_sizes(shape)) * dtype.itemsize != len(view):
        raise ValueError(f"{len(view)} bytes do not make a tensor of shape {tuple(shape)}")
    if len(view) == 0:
        return torch.empty(shape, dtype=dtype)
    if view.readonly:
        view = memoryview(bytearray(view))
    raw = torch.frombuffer(view, dtype=torch.uint8)
    if dtype == torch.bool and raw.max() > 1:
        raise ValueError("truth values other than 0 and 1")
    if raw.data_ptr() % dtype.itemsize:
        raw = raw.clone()
    return raw.view(dtype).reshape(shape)


def tensor_to_bytes(tensor: torch.Tensor) -> memoryview:
    """The elements in row-major order, little-endian; no copy if the tensor is contiguous and on the CPU."""
    if sys.byteorder != "little":
        raise NotImplementedError("network files are written on little-endian machines only")
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


class _NumpyDtype(Stateful):
    """A numpy dtype of plain numbers."""

    def __init__(self, source: str, code: Any, *_flags: Any) -> None:
        self.code = code if isinstance(code, str) else type(code).__name__
        self.order = "<"
        if self.code not in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1"):
            raise UnsafeFile(f"refusing numpy data of type {self.code[:20]!a} in {source}")

    def set_state(self, state: Any) -> None:
        order = state[1]
        if order not in ("<", ">", "=", "|"):
            raise ValueError("unknown byte order")
        self.order = order

    def number(self, data: Any) -> bool | int | float:
        """One number from its bytes."""
        dtype = np.dtype(self.order + self.code)
        (value,) = np.frombuffer(data, dtype=dtype)
        return value.item()


class PlainNamespace(Stateful):
    """Attributes as plain data (argparse.Namespace, EasyDict-like objects)."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def set_state(self, state: Any) -> None:
        self.attributes = dict(state)


def _plain_dict(items: Any = ()) -> dict:
    if isinstance(items, dict):
        return dict(items)
    result: dict = {}
    for key, value in items:
        result[checked_key(key)] = value
    return result


def _plain_set(items: Any = ()) -> set:
    return {checked_key(item) for item in items}


def _encode(text: Any, encoding: Any) -> bytes:
    if encoding != "latin1" or not isinstance(text, str):
        raise ValueError("bytes in an unexpected encoding")
    return text.encode("latin1")


def _device(kind: Any, index: Any = None) -> str:
    if not isinstance(kind, str) or len(kind) > MAX_NAME:
        raise ValueError("a device without a name")
    return kind


def _sizes(sizes: Any = ()) -> tuple[int, ...]:
    """Sides or strides of a tensor, or its whole shape. ValueError if that can't be any."""
    if not isinstance(sizes, (list, tuple)) or len(sizes) > _MAX_SIDES:
        raise ValueError("impossible sizes")
    if any(type(n) is not int or not 0 <= n < _MAX_SIDE for n in sizes):
        raise ValueError("impossible sizes")
    return tuple(sizes)


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_unused: Any) -> torch.Tensor:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without storage")
    (offset,), size, stride = _sizes([offset]), _sizes(size), _sizes(stride)
    if len(size) != len(stride):
        raise ValueError("a tensor with impossible sizes")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride)) if all(size) else offset - 1
    # More elements than are stored would be a memory bomb once copied.
    if last >= storage.elements.numel() or _product(size) > storage.elements.numel():
        raise ValueError(f"a tensor of shape {size} reaches beyond its {storage.elements.numel()} stored elements")
    return storage.elements.as_strided(size, stride, offset)


def _rebuild_parameter(data: Any, *_unused: Any) -> torch.Tensor:
    if not isinstance(data, torch.Tensor):
        raise ValueError("a parameter without a tensor")
    return data


def _product(sizes: Any) -> int:
    result = 1
    for n in sizes:
        result *= n
    return result


def plain_constructors(source: str, budget: Budget) -> Allowed:
    """What pickles of the field contain besides classes of their own: numbers, containers, tensors.

    Each makes no more than a copy of its arguments, which the reader has charged to the budget.
    """
    allowed: Allowed = {
        "collections.OrderedDict": _plain_dict,
        "dnnlib.util.EasyDict": _plain_dict,
        "builtins.set": _plain_set,
        "__builtin__.set": _plain_set,
        "argparse.Namespace": PlainNamespace,
        "_codecs.encode": _encode,
        "numpy.dtype": functools.partial(_NumpyDtype, source),
        "numpy._core.multiarray.scalar": lambda dtype, data: dtype.number(data),
        "numpy.core.multiarray.scalar": lambda dtype, data: dtype.number(data),
        "torch._utils._rebuild_tensor": _rebuild_tensor,
        "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
        "torch._utils._rebuild_parameter": _rebuild_parameter,
        "torch.storage._load_from_bytes": lambda data: _nested_storage(data, source, budget),
        "torch.Size": _sizes,
        "torch.device": _device,
    }
    return allowed | _storage_types() | {f"torch.{name}": Constant(dtype) for name, dtype in DTYPES.items()}


def _storage_types() -> Allowed:
    return {f"torch.{name}": Constant(DTYPES[dtype]) for name, dtype in _STORAGES.items()}


def _nested_storage(data: Any, source: str, budget: Budget) -> Storage:
    """The storage that a pickled tensor carries as a legacy stream of its own; nothing else may be in there."""
    storage = _read_legacy(data, f"a tensor inside {source}", _storage_types(), budget)
    if not isinstance(storage, Storage):
        raise UnsafeFile(f"refusing a tensor inside {source} that is no storage of numbers")
    return storage


def read_zip(data: Any, source: str, with_tensors: bool = True) -> Any:
    """The object in a zip file of `torch.save` (1.6 and later); without tensors None stands for each.

    Raises UnsafeFile or DamagedFile.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = _checked_entries(archive, len(data), source)
            folder = _archive_folder(entries, source)
            if f"{folder}/byteorder" in entries and archive.read(f"{folder}/byteorder") != b"little":
                raise DamagedFile(f"{source}: tensors in big-endian order cannot be read")
            storages: dict[str, Storage] = {}

            def persistent_load(pid: Any) -> Storage:
                dtype, key, count = _storage_id(pid)
                if key not in storages:
                    part = archive.read(f"{folder}/data/{key}")
                    if len(part) != count * dtype.itemsize:
                        raise DamagedFile(
                            f"{source}: storage {key[:40]!a} has {len(part)} bytes instead of {count} items"
                        )
                    storages[key] = Storage(dtype, part)
                return storages[key]

            pickled = archive.read(f"{folder}/data.pkl")
            budget = Budget(len(data), source)
            allowed = plain_constructors(source, budget)
            if with_tensors:
                return Reader(pickled, allowed, source, persistent_load, budget).load()
            return Reader(pickled, allowed | _NO_TENSORS, source, lambda pid: None, budget).load()
    except UserError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, *DAMAGE) as e:
        raise DamagedFile(f"{source} is damaged: {str(e)[:120]}") from e


def _checked_entries(archive: zipfile.ZipFile, size: int, source: str) -> set[str]:
    """Names in the archive, which may hold nothing but stored, unencrypted, distinct parts of this file."""
    infos = archive.infolist()
    names = {info.filename for info in infos}
    if len(names) != len(infos) or len(infos) > _MAX_ENTRIES:
        raise UnsafeFile(f"refusing {source}: its zip directory has duplicate or too many entries")
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1 or info.file_size != info.compress_size:
            raise UnsafeFile(f"refusing {source}: entry {info.filename[:80]!a} is compressed or encrypted")
    if sum(info.file_size for info in infos) > size:
        raise UnsafeFile(f"refusing {source}: its zip entries overlap")
    return names


def _archive_folder(names: set[str], source: str) -> str:
    folders = [name.removesuffix("/data.pkl") for name in names if name.endswith("/data.pkl")]
    if len(folders) != 1:
        raise DamagedFile(f"{source} is a zip file, but none that torch.save wrote: there is no data.pkl in it")
    if any(name.startswith(f"{folders[0]}/code/") or name.endswith("/constants.pkl") for name in names):
        raise UnsafeFile(f"refusing {source}: it is a TorchScript program, not a network's tensors")
    return folders[0]


def read_legacy(data: Any, source: str) -> Any:
    """The object in a legacy stream of `torch.save`: header pickles, the object, storage keys, raw storages."""
    budget = Budget(len(data), source)
    return _read_legacy(data, source, plain_constructors(source, budget), budget)


def _read_legacy(data: Any, source: str, allowed: Allowed, budget: Budget) -> Any:
    described: dict[str, tuple[torch.dtype, int]] = {}

    def describe(pid: Any) -> None:
        dtype, key, count = _storage_id(pid)
        described[key] = (dtype, count)

    # The storages stand behind the object that refers to them: a first pass finds them, a second builds the tensors.
    reader = Reader(data, allowed | _NO_TENSORS, source, describe, budget)
    start = _skip_header(reader, source)
    reader.load()
    keys = reader.load()
    storages = _read_storages(reader, keys, described, source)
    again = Reader(data, allowed, source, lambda pid: storages[_storage_id(pid)[1]], budget)
    again.position = start
    return again.load()


def _skip_header(reader: Reader, source: str) -> int:
    if reader.load() != LEGACY_MAGIC or reader.load() != LEGACY_PROTOCOL:
        raise DamagedFile(f"{source} is no file of torch.save")
    system = reader.load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise DamagedFile(f"{source}: tensors in big-endian order cannot be read")
    return reader.position


def _read_storages(
    reader: Reader, keys: Any, described: Mapping[str, tuple[torch.dtype, int]], source: str
) -> dict[str, Storage]:
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(described):
        raise DamagedFile(f"{source} is damaged: its list of storages does not fit")
    storages = {}
    for key in keys:
        dtype, count = described[key]
        if reader.number("<q") != count:
            raise DamagedFile(f"{source} is damaged: a storage of unexpected size")
        storages[key] = Storage(dtype, reader.take(count * dtype.itemsize))
    return storages


def _storage_id(pid: Any) -> tuple[torch.dtype, str, int]:
    """('storage', type, key, location, count, ...) -> dtype, key, count."""
    tag, dtype, key, _location, count = pid[:5]
    if tag != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
        raise ValueError("a persistent id that is no storage")
    if type(count) is not int or count < 0:
        raise ValueError("a storage of negative size")
    return dtype, key, count
