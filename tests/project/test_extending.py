"""docs/extending.md: every file on the page is taken from it and used as its commands say, but smaller."""

import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.dataset_samples import read_dataset_zip
from support.docs.pages import ROOT, read_page

from metrics import families
from metrics.detectors import registry
from torch_utils.ops.build import library
from torch_utils.ops.build.inline_cpp import load_source
from training.networks import files

PAGE = read_page(ROOT / "docs" / "extending.md")
FILES = {b.marks["file"]: b.text for b in PAGE.blocks if "file" in b.marks}
SHELL = "\n".join(b.text for b in PAGE.blocks if b.language == "sh").replace("\\\n", " ")
SMALLER = ["--kimg=0.032", "--metrics=none", "--set=G.channels=8", "--set=D.channels=[8,8,8]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder outside the project: the page's files, a data set, a cache."""
    folder = tmp_path_factory.mktemp("outside")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    (folder / "datasets").mkdir()
    (folder / "datasets" / "noto-emoji-32.zip").symlink_to(ROOT / "datasets" / "noto-emoji-32.zip")
    return folder


@pytest.fixture(scope="module")
def network(folder) -> str:
    """The page's generator, trained for two steps by the page's command."""
    said = run(folder, *written("train.py", "G.kind=adain"), *SMALLER)
    assert re.search(r"^G +adain, [\d,]+ parameters$", said, re.MULTILINE)
    path = re.search(r"^NET=(\S+)", SHELL, re.MULTILINE)[1].replace("000002", "000000")
    assert files.read(folder / path).training_set_kwargs["num_images"] == 1892
    return path


def written(script: str, word: str) -> list[str]:
    """The words of the page's command that calls `script` and has `word` in it."""
    (line,) = [line for line in SHELL.splitlines() if line.startswith(f"python {script} ") and word in line]
    return line.split()[1:]


def run(folder: Path, *command: str) -> str:
    """What `python COMMAND` prints; the scripts are the project's."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "STYLELOOM_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    script = [str(ROOT / command[0])] if command[0].endswith(".py") else [command[0]]
    done = subprocess.run(
        [sys.executable, *script, *command[1:]], cwd=folder, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_has_all_seven():
    assert list(FILES) == [
        "my_generator.py",
        "my_recipe.py",
        "my_metric.py",
        "my_detector.py",
        "my_op.py",
        "mlflow_tracker.py",
        "my_source.py",
    ]


def test_a_whole_recipe_is_one_file_of_at_most_200_lines(folder):
    """Two output levels, a discriminator of both, a pairing loss, a preset with scheduled lr and gamma."""
    assert len(FILES["my_recipe.py"].splitlines()) <= 200
    command = [*written("train.py", "two_sizes"), "--kimg=0.064", "--tick=0.032", "--metrics=none"]
    said = run(folder, *command)
    assert "two_sizes" in said
    (run_folder,) = (folder / "out" / "two-sizes").iterdir()
    lines = [json.loads(line) for line in (run_folder / "stats.jsonl").read_text().splitlines()]
    for name, start, end in (("G_opt.lr", 0.002, 0.0005), ("D_opt.lr", 0.002, 0.0005), ("loss.gamma", 1.0, 0.1)):
        first, last = (line[f"Schedule/{name}"]["mean"] for line in (lines[0], lines[-1]))
        assert first == pytest.approx(start)
        assert end < last < start, "two steps of a schedule over 125"
    assert lines[-1]["Loss/r1_penalty"]["mean"] > 0
    report = (run_folder / "report.html").read_text()
    assert "R1 penalty" in report
    assert "loss.gamma" in report
    state = torch.load(run_folder / "training-state.pt", weights_only=True)
    assert set(state["modules"]) == {"G", "D", "G_ema", "augment_pipe"}
    network = next(run_folder.glob("network-snapshot-*.pkl")).relative_to(folder)
    run(folder, "generate.py", "--import=my_recipe.py", f"--network={network}", "--seeds=0", "--outdir=seeds")
    assert np.asarray(Image.open(folder / "seeds" / "seed0000.png")).shape == (32, 32, 3)


def test_generator_metric_and_detector(folder, network):
    command = [word.replace("$NET", network) for word in written("generate.py", "grid")]
    run(folder, *command)
    pixels = np.asarray(Image.open(folder / "adain.png").convert("RGB"))
    assert pixels.shape[1] > 8 * 32
    assert pixels.std() > 1
    convert(folder)
    sizes = {"kid2k_lite0": "kid1k_full_lite0,copies1k_full_lite0,fid1k_full_colours", "$NET": network}
    command = written("calc_metrics.py", "kid2k_lite0")
    for old, new in sizes.items():
        command = [word.replace(old, new) for word in command]
    others = ["--import=my_metric.py", "--import=my_detector.py"]
    table = run(folder, *command, *others, "--data=datasets/pictures.zip")
    assert re.search(r"^fid1k_full_colours +[\d.]+ +colours +none +1,000 +100 ", table, re.MULTILINE), table
    values = {}
    for file in (folder / network).parent.glob("metric-*.jsonl"):
        values |= json.loads(file.read_text())["results"]
    assert values["kid1k_full_lite0"] > 0
    assert 0 <= values["copies1k_full_lite0"] <= 1


def test_what_the_metric_measures(monkeypatch):
    monkeypatch.setattr(families, "FAMILIES", dict(families.FAMILIES))
    names: dict = {}
    exec(FILES["my_metric.py"], names)
    real, metric = torch.randn(200, 8), types.SimpleNamespace(name="m")
    assert names["copies"](metric, real, real + 1e-3, "cpu") == {"m": 1}
    assert names["copies"](metric, real, real + 9, "cpu") == {"m": 0}
    assert families.FAMILIES["copies"].compute is names["copies"]


def test_what_the_detector_finds(monkeypatch):
    monkeypatch.setattr(registry, "_DETECTORS", dict(registry._DETECTORS))
    names: dict = {"__file__": __file__}
    exec(FILES["my_detector.py"], names)
    half = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    half[:, 1, :, 8:] = 255
    half[:, 2, ::2] = 255
    mean, spread = registry.load_detector("colours")(half, ["features"])["features"].view(2, 3, 4, 4)
    assert mean[1].tolist() == [[0, 0, 1, 1]] * 4
    assert mean[2].unique().tolist() == spread[2].unique().tolist() == [0.5]
    assert not spread[:2].any()


def test_op(folder, network):
    code = f"""
import warnings
warnings.simplefilter("error")
import torch
from torch_utils import ops
import my_op, train
snake = torch.ops.my_ops.snake
x = torch.randn(3, 5, 4)
if {library.ensure("cpu").loaded}:
    assert my_op.library() is not None
fast = snake(x, 2.0)
with ops.use("ref"):
    slow = snake(x, 2.0)
assert torch.allclose(fast, slow, atol=1e-6) and torch.allclose(snake(x.mT, 2.0), slow.mT, atol=1e-6)
torch.library.opcheck(snake, (x.requires_grad_(), 2.0))
x = torch.randn(7, dtype=torch.float64, requires_grad=True)
assert torch.autograd.gradcheck(lambda t: snake(t, 2.0), x)
assert torch.autograd.gradgradcheck(lambda t: snake(t, 2.0), x)
warnings.resetwarnings()
train.main({[*written("train.py", "G.kind=snake")[1:], *SMALLER]!r})
"""
    said = run(folder, "-c", code)
    (options,) = folder.glob("out/snake/*/training_options.json")
    assert json.loads(options.read_text())["G"]["frequency"] == 2.0
    assert "done: out/snake" in said


def convert(folder: Path) -> None:
    """Makes the page's NumPy file and converts it by the page's command."""
    if (folder / "datasets" / "pictures.zip").exists():
        return
    (block,) = [b for b in PAGE.blocks if b.language == "python" and "file" not in b.marks]
    exec(block.text.replace("pictures.npy", f"{folder}/pictures.npy"), {})
    said = run(folder, *written("dataset_tool.py", "my_source.py"), "--num-workers=1")
    assert "100 images of 32x32" in said


def test_source(folder):
    convert(folder)
    images = read_dataset_zip(folder / "datasets" / "pictures.zip")[0]
    assert images.shape == (100, 32, 32, 3)
    assert images.std() > 10


def test_a_source_that_does_not_compile_is_a_warning_and_none(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    with pytest.warns(UserWarning, match="the compiled broken is not in use: the compiler failed|there is no C"):
        assert load_source("broken", "this is no C++;") is None
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.warns(UserWarning, match=r"the compiled other is not in use: the C\+\+ compiler 'no-such-compiler'"):
        assert load_source("other", "") is None
    with pytest.raises(ValueError, match="identifier"):
        load_source("../x", "")
    assert not list(tmp_path.rglob("*.so"))


def test_converting_the_generator_of_the_page(folder, network):
    """Nothing on the page keeps torch.export from seeing any batch size."""
    out = run(folder, "-m", "training.networks", "convert", network, "adain.pt2", "--import=my_generator.py")
    assert "largest difference from the network" in out
    card = (folder / "adain.pt2.md").read_text()
    assert "| G_ema | `adain` |" in card
    assert "| fixed when it was exported | truncation psi 1.0, noise const |" in card
