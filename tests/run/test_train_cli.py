"""train.py as a process: the known commands run, bad input is one line with exit status 2 and leaves nothing behind."""

import hashlib
import io
import json
import pickle
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import train
from training.training_loop import Trainer

ROOT = Path(__file__).parents[2]
EMOJI = str(ROOT / "datasets" / "noto-emoji-32.zip")
TINY = [
    "--g_dict=16,16,8",
    "--num_layers=1,1,1",
    "--depth=8",
    "--set=D.channel_base=128",
    "--set=D.channel_max=8",
    "--set=G.w_dim=16",
    "--set=G.z_dim=16",
    "--metrics=none",
]


def run(script: str, *args: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(ROOT / script), *args], cwd=cwd, capture_output=True, text=True, timeout=600
    )


def call(*args: str) -> subprocess.CompletedProcess:
    """train.py within this process: what it prints and its exit status, without the seconds a start takes."""
    result = CliRunner().invoke(train.main, args)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return subprocess.CompletedProcess(args, result.exit_code, result.stdout, result.stderr)


def official_cifar_archive(path: Path, per_batch: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """A tar.gz laid out like cifar-10-python.tar.gz (https://www.cs.toronto.edu/~kriz/cifar.html): pickled
    dictionaries with bytes keys; rows of 3072 bytes, channels first. Returns training images and labels in order."""
    rnd = np.random.RandomState(7)
    names = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck"]
    images, labels = [], []
    with tarfile.open(path, "w:gz") as tar:
        for name in ["batches.meta", *(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
            if name == "batches.meta":
                content = {b"num_cases_per_batch": per_batch, b"label_names": names, b"num_vis": 3072}
            else:
                data = rnd.randint(0, 256, [per_batch, 3072], dtype=np.uint8)
                classes = [int(x) for x in rnd.randint(0, 10, per_batch)]
                if name != "test_batch":
                    images.append(data)
                    labels += classes
                files = [f"x_s_{i:06d}.png".encode() for i in range(per_batch)]
                content = {b"batch_label": name.encode(), b"labels": classes, b"data": data, b"filenames": files}
            raw = pickle.dumps(content, protocol=2)
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return np.concatenate(images).reshape(-1, 3, 32, 32), np.array(labels)


@pytest.fixture(scope="module")
def cifar(tmp_path_factory) -> tuple[Path, np.ndarray, np.ndarray]:
    folder = tmp_path_factory.mktemp("cifar")
    images, labels = official_cifar_archive(folder / "cifar-10-python.tar.gz")
    done = run("dataset_tool.py", f"--source={folder}/cifar-10-python.tar.gz", f"--dest={folder}/cifar10.zip")
    assert done.returncode == 0, done.stderr
    return folder / "cifar10.zip", images, labels


def test_cifar_archive_converts_pixel_for_pixel(cifar):
    path, images, labels = cifar
    with zipfile.ZipFile(path) as z:
        listed = json.loads(z.read("dataset.json"))["labels"]
        assert len(listed) == len(images)
        for i, (name, label) in enumerate(sorted(listed)):
            assert label == labels[i]
            assert np.array_equal(np.array(Image.open(z.open(name))).transpose(2, 0, 1), images[i])
            assert z.getinfo(name).compress_type == zipfile.ZIP_STORED


@pytest.mark.parametrize("cond", [False, True])
def test_the_readme_command_trains_and_its_network_generates(cifar, tmp_path, cond):
    """The field's own command line, with networks cut down by --set."""
    done = run(
        "train.py",
        f"--outdir={tmp_path}/runs",
        f"--data={cifar[0]}",
        "--gpus=1",
        "--batch=16",
        "--cfg=cifar",
        "--kimg=0.032",
        f"--cond={int(cond)}",
        *TINY,
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name == f"00000-cifar10-cifar{'-cond' * cond}-batch16"
    names = {p.name for p in folder.iterdir()}
    assert {
        "training_options.json",
        "log.txt",
        "stats.jsonl",
        "reals.png",
        "fakes_init.png",
        "fakes000000.png",
        "network-snapshot-000000.pkl",
    } <= names
    stats = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
    assert set(stats[-1]["Loss/D/loss"]) == {"num", "mean", "std"}
    assert stats[-1]["Progress/kimg"]["mean"] == pytest.approx(0.032)
    assert "timestamp" in stats[-1]
    assert "tick 0 " in done.stdout
    assert "sec/kimg" in (folder / "log.txt").read_text()

    network = f"--network={folder}/network-snapshot-000000.pkl"
    chosen = ["--class=3"] if cond else []
    for i, noise in enumerate(["const", "random"]):
        out = [tmp_path / f"out{i}{j}" for j in range(2)]
        first = run("generate.py", f"--outdir={out[0]}", "--seeds=3,100-101", network, f"--noise-mode={noise}", *chosen)
        assert first.returncode == 0, first.stderr
        run("generate.py", f"--outdir={out[1]}", "--seeds=101", network, f"--noise-mode={noise}", *chosen)
        assert sorted(p.name for p in out[0].iterdir()) == ["seed0003.png", "seed0100.png", "seed0101.png"]
        assert (out[0] / "seed0101.png").read_bytes() == (out[1] / "seed0101.png").read_bytes()
    if cond:
        for wrong in (["--class=10"], []):
            refused = run("generate.py", f"--outdir={tmp_path}/no", "--seeds=1", network, *wrong)
            assert_refused(refused, "class", tmp_path / "no")


def assert_refused(done: subprocess.CompletedProcess, word: str, *absent: Path) -> None:
    """Exit status 2, one line on stderr, and nothing left behind."""
    assert done.returncode == 2, (done.returncode, done.stdout[-300:], done.stderr)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("Error: ")
    assert word in lines[0]
    for path in absent:
        assert not path.exists()


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["--data=nowhere/cifar10.zip"], "dataset_tool.py"),
        (["--cfg=cifar"], "datasets/cifar10.zip"),
        (["--cfg=auto"], "--data"),
        ([f"--data={EMOJI}", "--g_dict=256,64"], "g_dict wants 3"),
        ([f"--data={EMOJI}", "--g_dict=256,x"], "256,x"),
        ([f"--data={EMOJI}", "--cfg=nonsense"], "nonsense"),
        ([f"--data={EMOJI}", "--metrics=fid50k_fool"], "fid50k_fool"),
        ([f"--data={EMOJI}", "--metrics=fid1k_full", "--kimg=0"], "inception"),
        ([f"--data={EMOJI}", "--set=G.nonsense=3"], "G.nonsense"),
        ([f"--data={EMOJI}", "--set=batch=many"], "batch"),
        ([f"--data={EMOJI}", "--set=batch"], "--set"),
        ([f"--data={EMOJI}", "--batch=33", "--batch-gpu=4"], "33"),
        ([f"--data={EMOJI}", "--p=0.5"], "--aug=fixed"),
        ([f"--data={EMOJI}", "--aug=fixed"], "--p"),
        ([f"--data={EMOJI}", "--cfg=cifar", "--start-resolution=7"], "7x7"),
        ([f"--data={EMOJI}", "--linformer=1", "--cfg=auto"], "G.kind=styleformer"),
        ([f"--data={EMOJI}", "--import=nowhere.py"], "nowhere.py"),
        ([f"--data={EMOJI}", "--subset=100000"], "100000"),
        ([f"--data={EMOJI}", "--no-such-option"], "no-such-option"),
    ],
)
def test_bad_input_is_one_line(tmp_path, args, word):
    # A last guard: what is not refused must not train for days.
    assert_refused(call(f"--outdir={tmp_path}/runs", "--set=total_kimg=0", *args), word, tmp_path / "runs")


def image_zip(path: Path, sizes: list[tuple[int, int]], labels: list | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as z:
        names = []
        for i, (w, h) in enumerate(sizes):
            data = io.BytesIO()
            Image.new("RGB", (w, h), (i * 10 % 256, 100, 200)).save(data, "PNG")
            names.append(f"00000/img{i:08d}.png")
            z.writestr(names[-1], data.getvalue())
        if labels is not None:
            listed = [[n, x] for n, x in zip(names, labels)]
            z.writestr("dataset.json", json.dumps({"labels": listed}))
    return path


@pytest.mark.parametrize(
    ("case", "word"),
    [("not a zip", "zip"), ("mixed", "mixes sizes"), ("odd", "never reaches"), ("labels", "label"), ("none", "labels")],
)
def test_bad_data_is_one_line(tmp_path, case, word):
    data, extra = tmp_path / "data.zip", []
    if case == "not a zip":
        data.write_bytes(b"PK\x03\x04 this is no zip file")
    elif case == "mixed":
        image_zip(data, [(32, 32), (32, 32), (16, 32)])
    elif case == "odd":
        image_zip(data, [(36, 36)] * 3)
    elif case == "labels":
        image_zip(data, [(32, 32)] * 3, labels=[0, 1])
        extra = ["--cond=1"]
    else:
        image_zip(data, [(32, 32)] * 3)
        extra = ["--cond=1"]
    done = call(f"--outdir={tmp_path}/runs", f"--data={data}", "--metrics=none", *extra)
    assert_refused(done, word, tmp_path / "runs")


def test_bad_input_to_the_process_is_one_line_too(tmp_path):
    args = [f"--outdir={tmp_path}/runs", "--data=nowhere.zip", "--cfg=cifar"]
    assert_refused(run("train.py", *args), "nowhere.zip", tmp_path / "runs")


def test_dry_run_prints_config_and_sizes_and_writes_nothing(tmp_path):
    done = call(f"--outdir={tmp_path}/runs", "--cfg=cifar", "--batch=32", "-n", "--set", "G.w_dim=512")
    assert done.returncode == 0, done.stderr
    assert "G: styleformer, 18,369,040 parameters" in done.stdout
    assert "D: stylegan2_discriminator, 20,720,641 parameters" in done.stdout
    cfg = json.loads(done.stdout[: done.stdout.rindex("}") + 1])
    assert cfg["D"]["mbstd_group_size"] == 4, "an explicit --batch sets it, as in the originals"
    assert cfg["loss"]["r1_gamma"] == 0.01
    assert not (tmp_path / "runs").exists()


def test_two_runs_of_a_command_write_the_same_network(tmp_path):
    digests = []
    for i in range(2):
        args = [f"--outdir={tmp_path}/{i}", f"--data={EMOJI}", "--cfg=cifar", "--batch=8", "--kimg=0.032", *TINY]
        done = run("train.py", *args)
        assert done.returncode == 0, done.stderr
        (folder,) = (tmp_path / str(i)).iterdir()
        digests.append(hashlib.sha256((folder / "fakes000000.png").read_bytes()).hexdigest())
    assert digests[0] == digests[1]


def test_user_network_by_import(tmp_path):
    """A generator of one's own in one file, trained and sampled."""
    (tmp_path / "mine.py").write_text(
        """
from dataclasses import dataclass
import torch
from training.networks import Generator, GeneratorConfig, register

@dataclass
class MyConfig(GeneratorConfig):
    width: int = 8

@register("mine", MyConfig)
class MyGenerator(Generator):
    def __init__(self, cfg):
        super().__init__(cfg, num_ws=1)
        self.out = torch.nn.Linear(cfg.w_dim, 3 * cfg.img_resolution[0] * cfg.img_resolution[1])

    def synthesis(self, ws, noise_mode="random"):
        return self.out(ws[:, 0]).reshape(-1, 3, *self.img_size)
"""
    )
    done = run(
        "train.py",
        f"--outdir={tmp_path}/runs",
        f"--data={EMOJI}",
        f"--import={tmp_path}/mine.py",
        "--set=G.kind=mine",
        "--set=G.w_dim=16",
        "--set=G.z_dim=16",
        "--set=D.channel_base=128",
        "--set=D.channel_max=8",
        "--set=total_kimg=0.016",
        "--set=metrics=[]",
        "--batch=8",
    )
    assert done.returncode == 0, done.stderr
    (network,) = (tmp_path / "runs").glob("*/network-snapshot-000000.pkl")
    args = ["generate.py", f"--outdir={tmp_path}/out", "--seeds=0", f"--network={network}"]
    assert run(*args, f"--import={tmp_path}/mine.py").returncode == 0
    assert_refused(run(*args), "mine")


@pytest.mark.parametrize(("batch", "answer"), [(6, "try --batch-gpu=3,"), (1, "take smaller networks")])
def test_a_gpu_that_is_too_small_is_one_line(tmp_path, monkeypatch, batch, answer):
    def fails(self):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(Trainer, "step", fails)
    done = call(f"--data={EMOJI}", *TINY, f"--batch={batch}", f"--outdir={tmp_path}", "--kimg=1")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"Error: the GPU's memory is too small for micro-batches of {batch}: {answer}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("deterministic", [True, False])
def test_deterministic_algorithms_by_choice(tmp_path, monkeypatch, deterministic):
    seen = []

    def step(self):
        seen.append((torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark))
        self.nimg += 1000

    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")  # also puts back what the command sets
    setting = f"--set=deterministic={str(deterministic).lower()}"
    done = call(f"--data={EMOJI}", *TINY, "--batch=1", f"--outdir={tmp_path}", "--kimg=1", setting)
    torch.use_deterministic_algorithms(False)
    assert done.returncode == 0, done.stderr
    assert seen == [(deterministic, not deterministic)]
