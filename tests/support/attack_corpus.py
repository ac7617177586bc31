"""Files that try to run code, write, or exhaust memory. Each comes with what the refusal must say."""

import collections
import functools
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable

import numpy as np
import torch

OPCODES = 100_000  # the reader's limit while the corpus is tried
MARK = "attack-was-here"  # file in the working directory that a successful attack leaves


class Call:
    """Pickles as a call of `function(*arguments)`."""

    def __init__(self, function: Callable, *arguments, state=None) -> None:
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


SHELL = f"touch {MARK}"
CODE = f"open({MARK!r}, 'w')"


def pickled(value, protocol: int = 2) -> bytes:
    return pickle.dumps({"G_ema": value}, protocol)


def global_(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def stack_global(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def body(code: bytes) -> bytes:
    return b"\x80\x04" + code + b"."


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


def legacy_stream(describe: bytes, count: int, data: bytes) -> bytes:
    """A legacy torch stream: `describe` is the code that puts the object on the stack."""
    head = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    return b"".join(head) + body(describe) + pickle.dumps(["0"], 2) + struct.pack("<q", count) + data


def storage_id(count: int) -> bytes:
    number = b"\x8a\x08" + struct.pack("<q", count)
    return b"(" + text("storage") + global_("torch", "FloatStorage") + text("0") + text("cpu") + number + b"NtQ"


def tensor(size: list[int], stride: list[int], offset: int = 0, stored: int = 4) -> bytes:
    """Code for a tensor of `stored` floats, read with size, stride and offset."""
    stream = legacy_stream(storage_id(stored), stored, bytes(4 * stored))
    storage = call(global_("torch.storage", "_load_from_bytes"), b"B" + struct.pack("<I", len(stream)) + stream)
    numbers = [pickle.dumps(tuple(n), 2)[2:-1] for n in (size, stride)]
    where = pickle.dumps(offset, 2)[2:-1]
    return call(global_("torch._utils", "_rebuild_tensor_v2"), storage, where, *numbers, b"\x89", b"N")


def archive(entries: dict[str, bytes], **options) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", **options) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return out.getvalue()


def _code() -> dict[str, tuple[bytes, str]]:
    """Attacks that name what they want to call."""
    evil = Call(os.system, SHELL)
    partial = Call(functools.partial(functools.partial(os.system), SHELL))
    nested = io.BytesIO()
    torch.save(evil, nested, _use_new_zipfile_serialization=False)
    load_nested = call(
        global_("torch.storage", "_load_from_bytes"),
        b"B" + struct.pack("<I", len(nested.getvalue())) + nested.getvalue(),
    )
    return {
        "os.system": (pickled(evil), "refusing to load posix.system from"),
        "os.system, protocol 0": (pickle.dumps({"G_ema": evil}, 0), "no network file"),
        "os.system, protocol 5": (pickled(evil, 5), "refusing to load posix.system from"),
        "builtins.eval": (pickled(Call(eval, CODE)), "refusing to load __builtin__.eval from"),
        "builtins.exec": (pickled(Call(exec, CODE), 4), "refusing to load builtins.exec from"),
        "getattr": (
            body(call(stack_global("builtins", "getattr"), text("a"), text("b"))),
            "refusing to load builtins.getattr from",
        ),
        "functools.partial": (pickled(partial), "refusing to load functools.partial from"),
        "nested torch stream": (body(load_nested), "refusing to load posix.system from a tensor inside"),
        "torch.load": (pickled(Call(torch.load, io.BytesIO(b""))), "refusing to load torch.serialization.load from"),
        "numpy object array": (
            pickled(np.array([evil], dtype=object)),
            r"refusing to load numpy\.(_core|core)\.multiarray\._reconstruct from",
        ),
        "numpy object scalar": (
            body(call(global_("numpy._core.multiarray", "scalar"), call(global_("numpy", "dtype"), text("O8")))),
            "refusing numpy data of type 'O8'",
        ),
        "numpy load": (body(call(global_("numpy", "load"), text("x"))), "refusing to load numpy.load from"),
        "alias of os": (body(call(global_("os", "system"), text(SHELL))), "refusing to load os.system from"),
        "alias by STACK_GLOBAL": (
            body(call(stack_global("nt", "system"), text(SHELL))),
            "refusing to load nt.system from",
        ),
        "alias through the memo": (
            body(
                text("posix")
                + b"\x94"
                + text("system")
                + b"\x940"
                + b"0"
                + b"h\x00h\x01\x93"
                + b"("
                + text(SHELL)
                + b"tR"
            ),
            "refusing to load posix.system from",
        ),
        "dotted walk": (
            body(call(stack_global("collections", "OrderedDict.__init__.__globals__"), text("x"))),
            r"refusing to load collections\.OrderedDict\.__init__\.__globals__ from",
        ),
        "dotted walk from our builder": (
            body(call(stack_global("training.networks.files", "cache.requests.get"), text("http://127.0.0.1"))),
            r"refusing to load training\.networks\.files\.cache\.requests\.get from",
        ),
        "other names of our modules": (
            body(call(global_("torch_utils.files.persistence", "os.system"), text(SHELL))),
            r"refusing to load torch_utils\.files\.persistence\.os\.system from",
        ),
        "state of a class": (
            body(global_("collections", "OrderedDict") + b"}" + text("__init__") + b"Nsb"),
            "refusing to set the state of",
        ),
        "__setstate__": (
            pickled(Call(collections.Counter, state={"a": evil})),
            "refusing to load collections.Counter from",
        ),
        "call of a result": (body(call(b"]", text("x"))), "refusing to call list"),
        "constructor as value": (
            body(b"(" + global_("collections", "OrderedDict") + b"t"),
            "refusing collections.OrderedDict as a value",
        ),
        "INST": (body(b"(" + text(SHELL) + b"ios\nsystem\n"), "refusing pickle opcode 0x69"),
        "OBJ": (body(b"(" + global_("os", "system") + text(SHELL) + b"o"), "refusing to load os.system"),
        "extension registry": (body(b"\x82\x01"), "refusing pickle opcode 0x82"),
        "persistent id": (body(text("x") + b"Q"), "refusing persistent ids"),
        "out-of-band buffer": (body(b"\x97"), "refusing pickle opcode 0x97"),
        "keyword arguments": (
            body(global_("collections", "OrderedDict") + b")}" + text("a") + b"Ns\x92"),
            "refusing keyword arguments",
        ),
        "nested stream that is no storage": (
            body(call(global_("torch.storage", "_load_from_bytes"), b"C\x01a")),
            "truncated or damaged|is damaged",
        ),
    }


def _bombs() -> dict[str, tuple[bytes, str]]:
    """Attacks on memory and time."""
    huge = struct.pack("<Q", 1 << 60)
    laughs = b"]\x94" + b"".join(b"0(" + (b"h" + bytes([i])) * 10 + b"l\x94" for i in range(12))
    collisions = b"".join(b"\x8a\x10" + ((2**61 - 1) * i).to_bytes(16, "little") + b"N" for i in range(1, 1000))
    return {
        "bytes of 2^60": (body(b"\x8e" + huge), "announced, fewer are there"),
        "bytearray of 2^60": (body(b"\x96" + huge), "announced, fewer are there"),
        "text of 2^60": (body(b"\x8d" + huge), "announced, fewer are there"),
        "frame of 2^60": (b"\x80\x04\x95" + huge + b"\x8e" + huge + b".", "announced, fewer are there"),
        "LONG4 of 2^31": (body(b"\x8b\xff\xff\xff\x7f"), "an integer of 2147483647 bytes"),
        "LONG4 negative": (body(b"\x8b\xff\xff\xff\xff"), "an integer of 4294967295 bytes"),
        "LONG4 of a megabyte": (body(b"\x8b" + struct.pack("<I", 1 << 20) + b"\x7f" * (1 << 20)), "an integer of"),
        "decimal digits": (body(b"L" + b"9" * 4000 + b"L\n"), "an integer of"),
        "far memo entry": (body(b"Nr\xff\xff\xff\x7f0"), "unbalanced stack"),
        "deep lists": (body(b"]" * 40_000 + b"a" * 39_999), "nested deeper"),
        "deep tuples": (body(b")" + b"\x85" * 40_000), "nested deeper"),
        "marks": (body(b"(" * 90_000), "is damaged"),
        "list in itself": (body(b"]\x94h\x00a"), "nested deeper"),
        "billion laughs": (body(laughs), "nested deeper|expanding without end"),
        "colliding keys": (body(b"}(" + collisions + b"u"), "an? int as key"),
        "endless opcodes": (body(b"N0" * (OPCODES // 2 + 1) + b"N"), "more than .* pickle opcodes"),
        "tensor of 2^50": (body(tensor([1 << 25, 1 << 25], [1 << 25, 1])), "reaches beyond"),
        "expanded tensor": (body(tensor([1 << 20, 1 << 20], [0, 0])), "reaches beyond"),
        "tensor before its storage": (body(tensor([1], [1], offset=-1)), "impossible sizes"),
        "negative stride": (body(tensor([4], [-1], offset=3)), "impossible sizes"),
        "storage of 2^60": (
            body(
                call(
                    global_("torch.storage", "_load_from_bytes"),
                    b"B" + struct.pack("<I", len(s := legacy_stream(storage_id(1 << 60), 1 << 60, b""))) + s,
                )
            ),
            "announced, fewer are there",
        ),
    }


def _expansions() -> dict[str, tuple[bytes, str]]:
    """Small files that refer to one thing many times, each time for another copy."""
    laughs = b"]\x94" + b"".join(b"0(" + (b"h" + bytes([i])) * 10 + b"l\x94" for i in range(30))
    kept = laughs + b"0"  # the deepest list is memo entry 30
    long_text = text("x" * 1_000_000) + b"r\x00\x01\x00\x000"
    many = b"j\x00\x01\x00\x00"
    storage = legacy_stream(storage_id(250_000), 250_000, bytes(1_000_000))
    storage = b"B" + struct.pack("<I", len(storage)) + storage + b"r\x00\x01\x00\x000"
    entries = b"".join(text(f"{i}") + b"N" for i in range(10_000))
    dictionary = b"}(" + entries + b"ur\x00\x01\x00\x000"
    shape = b"(" + (b"\x8a\x1f" + b"\x7f" * 31) * 20_000 + b"l"
    odd = "data nested deeper|expanding without end|makes more than|a device without|is damaged"

    def repeated(function: bytes, times: int, *rest: bytes) -> bytes:
        return b"(" + call(function, many, *rest) * times + b"l"

    def network(tensors: bytes) -> bytes:
        return call(global_("training.networks.files", "network_from_record"), text("x"), b"}", tensors)

    one_tensor = [text("uint8") + b"]K\x01a" + many for _ in range(2000)]
    tensors = b"}(" + b"".join(text(f"{i}") + b"(" + part + b"t" for i, part in enumerate(one_tensor)) + b"u"
    buffer = b"B" + struct.pack("<I", 1_000_000) + bytes(1_000_000) + b"r\x00\x01\x00\x000"
    whole = call(global_("torch._utils", "_rebuild_tensor_v2"), many_storage := b"j\x01\x01\x00\x00", b"K\x00",
                 b"(\x8a\x03\x90\xd0\x03t", b"(K\x01t")  # fmt: skip
    assert many_storage
    clones = call(global_("torch.storage", "_load_from_bytes"), many) + b"r\x01\x01\x00\x000"
    return {
        "shared lists as a device": (body(kept + call(global_("torch", "device"), b"h\x1e")), odd),
        "shared lists as a dtype": (body(kept + call(global_("numpy", "dtype"), b"h\x1e")), "refusing numpy data"),
        "torch.Size of bytes": (body(buffer + repeated(global_("torch", "Size"), 2000)), odd),
        "bytes encoded again": (body(long_text + repeated(global_("_codecs", "encode"), 2000, text("latin1"))), odd),
        "dict copied again": (body(dictionary + repeated(global_("collections", "OrderedDict"), 5000)), odd),
        "text referred to again": (body(long_text + b"(" + many * 20_000 + b"l"), odd),
        "one buffer, many names": (body(buffer + network(tensors)), odd),
        "storage loaded again": (body(storage + repeated(global_("torch.storage", "_load_from_bytes"), 2000)), odd),
        "tensor cloned": (body(storage + clones + b"(" + whole * 2000 + b"l"), odd),
        "huge integers as a shape": (
            body(network(b"}" + text("a") + b"(" + text("uint8") + shape + b"C\x01at" + b"s")),
            "impossible sizes",
        ),
    }


def _archives() -> dict[str, tuple[bytes, str]]:
    """Tricks with zip, tar and safetensors files."""
    empty = pickle.dumps({}, 2)
    evil = pickle.dumps({"g_ema": Call(os.system, SHELL)}, 2)
    long_storage = body(b"}" + text("g_ema") + storage_id(1 << 40) + b"s")
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as file:
        file.writestr("x/data.pkl", empty)
        file.filelist[0].filename = "x/other"
        file.NameToInfo.clear()
        file.writestr("x/data.pkl", evil)
        file.filelist[0].filename = "x/data.pkl"
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as file:
        info = tarfile.TarInfo("../" + MARK)
        file.addfile(info, io.BytesIO(b""))
    deep = ("[" * 100_000 + "]" * 100_000).encode()
    header = json.dumps({"__metadata__": {"styleloom": deep.decode()}}).encode()
    overlapping = {"__metadata__": {}, **{n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}}
    return {
        "code in a zip": (archive({"x/data.pkl": evil}), "refusing to load posix.system from"),
        "deflated zip": (
            archive({"x/data.pkl": b"\0" * 10_000_000}, compression=zipfile.ZIP_DEFLATED),
            "is compressed or encrypted",
        ),
        "two entries of one name": (twice.getvalue(), "duplicate"),
        "zip without data.pkl": (archive({"../../" + MARK: b"x"}), "no data.pkl"),
        "TorchScript": (archive({"x/data.pkl": empty, "x/code/a.py": CODE.encode()}), "TorchScript program"),
        "storage that is not there": (archive({"x/data.pkl": long_storage}), "is damaged"),
        "storage of another size": (archive({"x/data.pkl": long_storage, "x/data/0": b"abcd"}), "instead of"),
        "big-endian": (archive({"x/data.pkl": empty, "x/byteorder": b"big"}), "big-endian"),
        "no network in the zip": (archive({"x/data.pkl": empty}), "holds no network"),
        "no dict in the zip": (archive({"x/data.pkl": pickle.dumps([1], 2)}), "is not what the official"),
        "tar": (tar.getvalue(), "no network file"),
        "safetensors header of 2^60": (struct.pack("<Q", 1 << 60) + b"{}", "is damaged"),
        "safetensors, deep metadata": (struct.pack("<Q", len(header)) + header, "is damaged"),
        "safetensors, overlapping": (
            struct.pack("<Q", len(h := json.dumps(overlapping).encode())) + h + bytes(4),
            "is damaged",
        ),
        "safetensors of someone else": (struct.pack("<Q", 2) + b"{}", "no 'styleloom' metadata"),
        "nothing": (b"", "is empty"),
        "text": (b"import os", "no network file"),
        "a list": (pickle.dumps([1, 2], 2), "holds a list"),
        "an unknown dict": (pickle.dumps({"a": 1}, 2), "holds no network"),
    }


def corpus() -> dict[str, tuple[bytes, str]]:
    """Name -> (content of the file, regular expression that the refusal matches)."""
    return _code() | _bombs() | _expansions() | _archives()
