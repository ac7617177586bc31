"""Model cards: what the file and its run folder say stands in them, what they don't say is marked."""

import hashlib
import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from support.small_generators import small_generator

from torch_utils.files.persistence import NETWORKS, NetworkFile, NetworkRecord
from training import networks
from training.config import TrainingConfig
from training.networks import __main__ as command
from training.networks import files
from training.networks.discriminators.stylegan2 import StyleGAN2DiscriminatorConfig
from training.publishing.card import TO_FILL_IN, model_card


def run(*arguments: object, status: int = 0) -> str:
    result = CliRunner().invoke(command.main, [str(a) for a in arguments])
    assert result.exit_code == status, result.output
    return result.output


@pytest.fixture
def snapshot(tmp_path) -> Path:
    """A snapshot in a run folder, with two metrics of it and one of another."""
    G, D = small_generator(c_dim=3), networks.build(StyleGAN2DiscriminatorConfig(channel_base=64, c_dim=3))
    cfg = TrainingConfig(preset="demo", batch=16)
    cfg.data.path = "/home/someone/secret/emoji.zip"
    path = tmp_path / "network-snapshot-000200.pkl"
    about_data = {"path": cfg.data.path, "mirror": False, "num_images": 1892}
    networks.save(path, {"G": G, "D": D, "G_ema": G}, cfg, about_data, {"kimg": 200.064})
    for name, value, file in (("kid2k_lite0", 1.25, path.name), ("cov2k", 0.5, path.name), ("fid9k", 9.0, "other.pkl")):
        line = {"results": {name: 8.0}, "metric": name, "snapshot_pkl": file, "detector": "lite0", "resize_mode": "r"}
        line |= {"num_generated": 2000, "num_real": 1892, "dataset": "emoji", "dataset_hash": "08d2c439aa"}
        lines = [json.dumps(line), json.dumps(line | {"results": {name: value}}), '{"results": {"cut']
        (tmp_path / f"metric-{name}.jsonl").write_text("\n".join(lines))
    return path


def row(card: str, name: str) -> str:
    """The value of a table's row."""
    return re.search(rf"^\| {re.escape(name)} \| (.*?) \|$", card, re.MULTILINE)[1]


def test_convert_writes_a_card_of_what_is_known(snapshot):
    made = snapshot.parent / "emoji.safetensors"
    assert "model card" in run("convert", snapshot, made, "--only=G_ema")
    card = (snapshot.parent / "emoji.safetensors.md").read_text()
    G = small_generator(c_dim=3)
    parameters, numbers = (sum(t.numel() for t in ts) for ts in (G.parameters(), G.state_dict().values()))
    assert f"| G_ema | `styleformer` | {parameters:,} | {numbers:,} |" in card
    assert "| D |" not in card  # it is not in the file
    assert row(card, "g_dict") == "`[16, 16, 8]`"
    assert row(card, "SHA-256 of the file") == f"`{hashlib.sha256(made.read_bytes()).hexdigest()}`"
    content = files.read(made)
    assert row(card, "digest of its content") == f"`{content.sha256(content.tensor_digests())}`"
    assert f"torch {torch.__version__}" in row(card, "made by")
    assert row(card, "converted from") == snapshot.name
    assert row(card, "name") == "emoji.zip"
    assert "secret" not in card
    assert row(card, "images") == "1,892"
    assert row(card, "resolution") == "32x32, RGB"
    assert row(card, "mirrored images added") == "no"
    assert row(card, "labels") == "vectors of length 3"
    assert row(card, "images seen") == "200,064"
    assert row(card, "batch") == "`16`"
    assert "| kid2k_lite0 | 1.25 | lite0 | r | 2000 | 1892 | emoji | 08d2c439aa |" in card
    assert "cov2k | 0.5" in card
    assert "fid9k" not in card
    options = json.loads(re.search(r"```json\n(.*?)```", card, re.DOTALL)[1])
    assert options["ema"]["half_life_kimg"] == TrainingConfig().ema.half_life_kimg
    for name in ("licence", "author, contact", "where from, licence, consent", "hardware, duration"):
        assert row(card, name) == TO_FILL_IN
    for head in ("Intended use", "Limits"):
        assert f"## {head}\n\n{TO_FILL_IN}" in card


def test_its_commands_sample(snapshot, tmp_path, monkeypatch):
    import generate

    run("card", snapshot)
    card = Path(f"{snapshot}.md").read_text()
    monkeypatch.chdir(snapshot.parent)
    for line in re.search(r"```sh\n(.*?)```", card, re.DOTALL)[1].splitlines():
        result = CliRunner().invoke(generate.main, line.split()[2:])
        assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "out").iterdir())) == 8


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_its_program_runs(snapshot, monkeypatch, suffix):
    """The exports themselves are tested in test_network_files.py; here stand-ins take their place."""
    G = small_generator(c_dim=3)
    made = snapshot.with_suffix(suffix)
    made.write_bytes(b"x")
    card = model_card(made, files.read(snapshot), [])
    session = types.SimpleNamespace(
        get_inputs=lambda: [types.SimpleNamespace(name="z"), types.SimpleNamespace(name="c")],
        run=lambda outputs, inputs: [G(*map(torch.from_numpy, (inputs["z"], inputs["c"]))).numpy()],
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", types.SimpleNamespace(InferenceSession=lambda name: session))
    monkeypatch.setattr(torch.export, "load", lambda name: types.SimpleNamespace(module=lambda: G))
    names: dict = {}
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], names)
    assert names["images"].shape == (1, 3, 32, 32)
    assert np.array_equal(names["z"], np.random.RandomState(0).randn(1, 16).astype(np.float32))
    assert f'"{made.name}"' in card
    assert "digest" not in card


def test_a_card_is_never_overwritten(snapshot):
    run("card", snapshot)
    card = Path(f"{snapshot}.md")
    card.write_text("mine")
    assert "perhaps filled in" in run("card", snapshot, status=2)
    again = snapshot.with_suffix(".safetensors")
    assert "model card; fill in" in run("convert", snapshot, again)  # beside the first one
    assert "left as it is" in run("convert", snapshot, again)
    assert card.read_text() == "mine"
    run("card", snapshot, snapshot.parent / "other.md")
    assert "# Model card" in (snapshot.parent / "other.md").read_text()
    run("convert", snapshot, snapshot.parent / "bare.safetensors", "--no-card")
    assert not (snapshot.parent / "bare.safetensors.md").exists()
    assert "cannot write" in run("card", snapshot, snapshot.parent / "nowhere" / "c.md", status=2)


def test_what_a_bare_file_leaves_open(tmp_path):
    file = tmp_path / "g.pkl"
    networks.save(file, {"G_ema": small_generator()})
    run("card", file)
    card = Path(f"{file}.md").read_text()
    for name in ("name", "images", "mirrored images added", "images seen", "converted from"):
        assert row(card, name) == TO_FILL_IN
    assert row(card, "labels") == "none"
    assert "No metric of this network was found" in card
    assert "doesn't hold the options" in card


def test_a_kind_that_is_not_registered_here_is_described_without_being_built(tmp_path):
    made = tmp_path / "x.pkl"
    made.write_bytes(b"x")
    record = NetworkRecord("not_known", {"size": 3}, {"a": torch.zeros(5)})
    card = model_card(made, NetworkFile(dict.fromkeys(NETWORKS) | {"G_ema": record}), [])
    assert f"| G_ema | `not_known` | {TO_FILL_IN} | 5 |" in card
    assert f"## Sampling\n\n{TO_FILL_IN}" in card
