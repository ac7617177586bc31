"""Hostile and damaged network files: refused in one line, nothing run, nothing written, no memory spent."""

import os
import random
import tracemalloc

import pytest
import torch
from support import attack_corpus, official_files

from dnnlib.errors import UserError
from torch_utils.files import safe_pickle
from training import networks
from training.networks import files

CORPUS = attack_corpus.corpus()
FORMATS = official_files.FOLDER.parent / "formats"


@pytest.mark.parametrize("name", list(CORPUS))
def test_attack_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(safe_pickle, "MAX_OPCODES", attack_corpus.OPCODES)
    data, message = CORPUS[name]
    path = tmp_path / "attack.pkl"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=message) as caught:
            networks.load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["attack.pkl"]
    assert peak < 40e6 + 10 * len(data)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_layers", [10**9], "is not from 0 to 256"),
        ("g_dict", [10**7], "is not from 1 to 65536"),
        ("g_dict", [2**16], "asks for a far larger network|can't be split|has shape"),
        ("g_dict", [-8], "is not from 1 to"),
        ("w_dim", -8, "w_dim: -8 is not from 1 to"),
        ("mapping_layers", 10**9, "is not from 0 to 256"),
        ("mapping_layers", 256, "asks for a far larger network|is missing"),
        ("start_resolution", [0, 0], "is not from 1 to"),
        ("conv_clamp", float("nan"), "no number of a reasonable size"),
        ("img_resolution", [2**40, 2**40], "is not from 1 to"),
        ("img_resolution", [2**16, 2**16], "wants 14 positive values"),
        ("c_dim", 2**62, "no number of a reasonable size|is not from 0 to"),
        ("c_dim", 2**20, "asks for a far larger network|has shape"),
    ],
)
def test_greedy_config_is_refused(field, value, message, tmp_path):
    content = files.read(FORMATS / "v1.pkl")
    content.networks["G_ema"].config[field] = value
    files.write(tmp_path / "x.pkl", content)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=message):
            networks.load(tmp_path / "x.pkl")
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One random damage: bits, bytes, a cut, an insertion, a removal, two blocks swapped."""
    damaged = bytearray(data)
    at = rng.randrange(len(data) if rng.random() < 0.5 else 2048)  # the structure begins at the front
    match rng.randrange(6):
        case 0:
            damaged[at] ^= 1 << rng.randrange(8)
        case 1:
            for _ in range(rng.randrange(1, 9)):
                damaged[rng.randrange(len(data))] = rng.randrange(256)
        case 2:
            del damaged[at:]
        case 3:
            damaged[at:at] = rng.randbytes(rng.randrange(1, 9))
        case 4:
            del damaged[at : at + rng.randrange(1, 9)]
        case 5:
            size, other = rng.randrange(1, 64), rng.randrange(len(data))
            damaged[at : at + size], damaged[other : other + size] = data[other : other + size], data[at : at + size]
    return bytes(damaged)


def same_content(a: files.NetworkFile, b: files.NetworkFile) -> bool:
    return a.plain() == b.plain() and a.tensor_digests() == b.tensor_digests()


def check_own_file(name: str, count: int, tmp_path) -> None:
    data = (FORMATS / name).read_bytes()
    intact = files.read(FORMATS / name)
    path = tmp_path / name
    refusals = []
    for seed in range(count):
        path.write_bytes(mutated(data, random.Random(seed)))
        try:
            assert same_content(files.read(path), intact), f"seed {seed}: another network came out"
        except UserError as e:
            refusals.append(str(e))
    assert len(refusals) > 0.9 * count
    assert not any("\n" in message for message in refusals)


@pytest.mark.parametrize("name", ["v1.pkl", "v1.safetensors"])
def test_damaged_file_is_refused_or_identical(name, tmp_path):
    check_own_file(name, 150, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["v1.pkl", "v1.safetensors"])
def test_damaged_file_is_refused_or_identical_2000_times(name, tmp_path):
    check_own_file(name, 2000, tmp_path)


def check_official_file(name: str, count: int, tmp_path) -> None:
    data = official_files.content(name)
    path = tmp_path / name
    refusals = []
    for seed in range(count):
        path.write_bytes(mutated(data, random.Random(seed)))
        try:
            loaded = networks.load(path)
        except UserError as e:
            refusals.append(str(e))
        else:
            assert any(isinstance(loaded[key], torch.nn.Module) for key in ("G", "D", "G_ema"))
    assert not any("\n" in message for message in refusals)


@pytest.mark.parametrize("name", official_files.FILES)
def test_damaged_official_file_gives_an_error_or_a_network(name, tmp_path):
    check_official_file(name, 12, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("name", official_files.FILES)
def test_damaged_official_file_gives_an_error_or_a_network_500_times(name, tmp_path):
    check_official_file(name, 500, tmp_path)


@pytest.mark.parametrize("name", ["v1.pkl", "v1.safetensors"])
def test_truncation_at_every_place(name, tmp_path):
    data = (FORMATS / name).read_bytes()
    path = tmp_path / name
    for end in range(0, len(data), 97):
        path.write_bytes(data[:end])
        with pytest.raises(UserError):
            files.read(path)
