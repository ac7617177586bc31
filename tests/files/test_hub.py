"""hf:// addresses and publishing, against a stand-in of the Hub's API."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image
from support.small_generators import network_file, small_generator
from support.web.hub_server import Hub, serving, table_of

import dataset_tool
import generate
import train
from dnnlib import UserError, cache, hub
from training import networks
from training.dataset import open_dataset
from training.dataset.embedded import EMBEDDED
from training.networks.__main__ import main as networks_main

ROOT = Path(__file__).parents[2]
TOKEN = "hf_SECRETsecretSECRETsecret"


@pytest.fixture
def server(monkeypatch, tmp_path):
    found = Hub()
    with serving(found) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield found


@pytest.fixture
def net(tmp_path):
    return network_file(tmp_path, small_generator())


def call(command, *args):
    done = CliRunner().invoke(command, [str(a) for a in args])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    assert TOKEN not in done.output
    return done


def test_addresses():
    assert hub.parse("hf://me/net", "model") == hub.Address("model", "me/net", None, None)
    address = hub.parse("hf://datasets/me/a.b@refs%2Fpr%2F1/x/y.zip", "dataset")
    assert address == hub.Address("dataset", "me/a.b", "refs/pr/1", "x/y.zip")
    for text in ("hf://me", "hf://me/../x/y", "hf://", "hf://me/net?x=1"):
        with pytest.raises(UserError, match="an address on the Hub reads"):
            hub.parse(text, "model")
    with pytest.raises(UserError, match="a model is wanted"):
        hub.parse("hf://datasets/me/x", "model")
    assert cache.is_url("hf://me/net")


def test_a_network_is_downloaded_once_and_found_without_a_connection(server, net, tmp_path, monkeypatch):
    server.put("me/net", {"README.md": b"#", "network.safetensors": b"", "other.txt": b"x"})
    networks.save(tmp_path / "n.safetensors", {"G_ema": small_generator()})
    server.repos["models", "me/net", "main"]["network.safetensors"] = (tmp_path / "n.safetensors").read_bytes()
    for address in ("hf://me/net", "hf://me/net/network.safetensors", "hf://me/net@main/network.safetensors"):
        out = tmp_path / address.replace("/", "_")
        done = call(generate.main, f"--network={address}", f"--outdir={out}", "--seeds=0")
        assert done.exit_code == 0, done.output
        assert done.stderr == ""  # no bar where there is no terminal
    assert server.asked.count("GET /me/net/resolve/main/network.safetensors") == 1
    assert f"Bearer {TOKEN}" in server.tokens
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert networks.load("hf://me/net/network.safetensors")["G_ema"] is not None
    assert networks.load("hf://me/net")["G_ema"] is not None
    with pytest.raises(UserError, match="there is no connection, and it was not downloaded before"):
        networks.load("hf://me/other/net.pkl")


def test_which_file_of_a_repository(server):
    snapshots = {f"run/network-snapshot-{kimg:06d}.pkl": b"" for kimg in (0, 200, 1000)}
    server.put("me/run", snapshots | {"run/log.txt": b""})
    assert cache.fetch("hf://me/run").name == "network-snapshot-001000.pkl"
    server.put("me/two", {"a.pkl": b"", "b.safetensors": b""})
    with pytest.raises(UserError, match="^hf://me/two holds a.pkl, b.safetensors; name the file: hf://me/two/FILE$"):
        cache.fetch("hf://me/two")
    server.put("me/none", {"a.txt": b""})
    with pytest.raises(UserError, match="no file that ends in .safetensors, .pkl, .pt"):
        cache.fetch("hf://me/none")


def test_what_is_not_there_is_one_line(server):
    server.put("me/net", {"a.pkl": b""})
    for address, message in (
        ("hf://me/gone", "no such repository, or it wants a token"),
        ("hf://me/gone/a.pkl", "no such repository, or it wants a token"),
        ("hf://me/net/b.pkl", "the repository has no such file"),
        ("hf://me/net@v2/a.pkl", "no such"),
        ("hf://me/net@v2", "no such revision"),
    ):
        done = call(networks_main, "show", address)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.output
        assert message in done.stderr


def test_training_data_from_the_hub(server, tmp_path):
    server.put("me/emoji", {"emoji.zip": Path(EMBEDDED).read_bytes(), "README.md": b""}, "datasets")
    dataset = open_dataset("hf://me/emoji")
    assert len(dataset) == 1892
    assert dataset.path.startswith(str(tmp_path / "hub"))
    done = call(train.main, "--cfg=demo", "--data=hf://datasets/me/emoji/emoji.zip", "--dry-run", "--gpus=1")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout[: done.stdout.rindex("}") + 1])["data"]["path"] == dataset.path
    server.put("me/tables", {"data/train.parquet": b""}, "datasets")
    assert "holds no file that ends in .zip" in call(train.main, "--data=hf://me/tables", "--gpus=1").stderr


@pytest.mark.parametrize("revision", ["main", "refs/convert/parquet"])
def test_tables_with_an_image_column_convert(server, tmp_path, revision):
    server.put("me/colours", {"README.md": b""}, "datasets")
    files = {"data/train-0.parquet": table_of(["red", "blue"]), "data/test-0.parquet": table_of(["white"])}
    server.put("me/colours", files | {"big.tar": b"x"}, "datasets", revision)
    done = call(
        dataset_tool.main, "--source=hf://me/colours", f"--dest={tmp_path}/c.zip", "--split=train", "--num-workers=1"
    )
    assert done.exit_code == 0, done.output
    images = open_dataset(tmp_path / "c.zip", use_labels=True)
    assert len(images) == 2
    assert "0%" not in done.stderr  # no bar where there is no terminal
    assert not any("big.tar" in asked for asked in server.asked)


def test_data_sets_without_tables_say_so(server):
    server.put("me/zip", {"a.zip": b""}, "datasets")
    done = call(dataset_tool.main, "--source=hf://me/zip", "--inspect")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "holds no Parquet tables; name a file" in done.stderr


def run_with_metrics(folder: Path) -> Path:
    G = small_generator()
    path = folder / "network-snapshot-000200.pkl"
    networks.save(
        path,
        {"G_ema": G},
        training_config={"data": {"path": "/home/somebody/cats.zip"}, "resume": "/home/somebody/start.pkl"},
        training_set_kwargs={"path": "/home/somebody/cats.zip"},
        provenance={"kimg": 200},
    )
    line = {"results": {"kid2k_lite0": 1.25}, "metric": "kid2k_lite0", "snapshot_pkl": path.name}
    (folder / "metric-kid2k_lite0.jsonl").write_text(json.dumps(line) + "\n")
    return path


def test_push_publishes_network_card_and_samples(server, tmp_path):
    file = run_with_metrics(tmp_path)
    done = call(networks_main, "push", file, "me/cats", "--licence=mit", "--dataset=me/cat-pictures")
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"{server.address}/me/cats: network.safetensors")
    made = server.repos["models", "me/cats", "main"]
    assert set(made) == {"README.md", "network.safetensors", "samples.png"}
    card = made["README.md"].decode()
    header = yaml.safe_load(card.split("---")[1])
    assert (header["license"], header["datasets"]) == ("mit", ["me/cat-pictures"])
    assert {"gan", "styleformer"} <= set(header["tags"])
    result = header["model-index"][0]["results"][0]["metrics"][0]
    assert (result["type"], result["value"]) == ("kid2k_lite0", 1.25)
    assert "![Samples of seeds 0 to 31](samples.png)" in card
    assert "| licence | mit |" in card
    assert "--network=hf://me/cats" in card
    assert Image.open(io.BytesIO(made["samples.png"])).width == 8 * 96 + 7 * 2
    everything = b"".join(made.values())
    assert b"somebody" not in everything
    assert TOKEN.encode() not in everything
    again = networks.load("hf://me/cats")
    for a, b in zip(again["G_ema"].parameters(), small_generator().parameters()):
        assert np.array_equal(a, b)
    assert call(networks_main, "push", file, "me/cats").exit_code == 0  # once more: the same repository


def test_push_refuses_before_it_makes_anything(server, net, tmp_path, monkeypatch):
    assert "an address on the Hub reads" in call(networks_main, "push", net, "cats").stderr
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert "wants a token that may write" in call(networks_main, "push", net, "me/cats").stderr
    assert not any(asked.startswith("POST") for asked in server.asked)
    done = call(networks_main, "push", net, "me/cats", f"--folder={tmp_path}/made")
    assert done.output == f"{tmp_path}/made: README.md, network.safetensors, samples.png\n"
    assert "is there already" in call(networks_main, "push", net, "me/cats", f"--folder={tmp_path}/made").stderr


def test_errors_hold_no_token():
    text = hub.without_tokens(f"401 for {TOKEN} at\nsecond line")
    assert text == "401 for hf_... at"


def test_without_the_package_one_line_says_what_to_install(tmp_path):
    (tmp_path / "huggingface_hub.py").write_text("raise ImportError")
    done = subprocess.run(
        [sys.executable, "-m", "training.networks", "show", "hf://me/net"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert re.fullmatch(r"Error: hf://me/net needs the package .*pip install 'styleloom\[hub\]'\n", done.stderr)
