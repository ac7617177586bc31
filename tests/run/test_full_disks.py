"""Every command on a full disk, on a read-only one, and where its folder can't be or goes away: one line, status 2."""

import os
import resource
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.dataset_samples import dataset_zip, pictures
from support.small_generators import network_file, small_generator
from test_resume import command_line, run_until

import calc_metrics
import generate
import train
from training import networks
from training.networks.__main__ import main as networks_main
from training.networks.generators.stylegan2 import StyleGAN2Config

ROOT = Path(__file__).parents[2]
EMOJI = ROOT / "datasets" / "noto-emoji-32.zip"
TINY = [
    "--cfg=cifar",
    "--g_dict=8,8,8",
    "--num_layers=1,1,1",
    "--depth=8",
    "--batch=4",
    "--metrics=none",
    "--kimg=0.01",
]
TINY += ["--set=D.channel_base=128", "--set=D.channel_max=8", "--set=G.w_dim=8", "--set=G.z_dim=8"]

# name -> the program, its arguments, where {net} is a network file, {target} a picture and {at} the place to write
COMMANDS = {
    "train": (train.main, [*TINY, f"--data={EMOJI}", "--outdir={at}"]),
    "seeds": (generate.main, ["--network={net}", "--seeds=0", "--outdir={at}"]),
    "grid": (generate.main, ["grid", "--network={net}", "--seeds=0-3", "--out={at}/x.png"]),
    "mix": (generate.main, ["mix", "--network={net}", "--rows=0", "--cols=1", "--styles=0-1", "--out={at}/x.png"]),
    "walk": (generate.main, ["walk", "--network={net}", "--seeds=0,1", "--frames=2", "--out={at}/x.gif"]),
    "count to a folder": (generate.main, ["count", "--network={net}", "--count=3", "--out={at}/fakes"]),
    "count to a zip": (generate.main, ["count", "--network={net}", "--count=3", "--out={at}/fakes.zip"]),
    "project": (generate.main, ["project", "--network={net}", "--target={target}", "--steps=1", "--outdir={at}"]),
    "convert to pkl": (networks_main, ["convert", "{net}", "{at}/x.pkl"]),
    "convert to safetensors": (networks_main, ["convert", "{net}", "{at}/x.safetensors"]),
    "convert to pt2": (networks_main, ["convert", "{tiny}", "{at}/x.pt2"]),
    "convert to onnx": (networks_main, ["convert", "{tiny}", "{at}/x.onnx"]),
    "card": (networks_main, ["card", "{net}", "{at}/x.md"]),
    "metrics": (calc_metrics.main, ["--metrics=kid1k_toy", "--baseline=mean", "--data={data}", "--outdir={at}"]),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    Image.new("RGB", (32, 32), "red").save(folder / "target.png")
    net = network_file(folder, small_generator())
    networks.load(net)  # so that no child has to import what this needs
    cfg = StyleGAN2Config(img_resolution=(8, 8), z_dim=8, w_dim=8, channel_base=64, channel_max=8)
    tiny = network_file(folder, networks.build(cfg), "tiny.pkl")
    data = dataset_zip(folder / "data.zip", pictures(20, 8, 8))
    return {"net": net, "tiny": tiny, "data": str(data), "target": str(folder / "target.png")}


@pytest.fixture(params=["full", "read-only", "a file", "absent"])
def place(request, tmp_path):
    """Where nothing can be written."""
    folder = tmp_path / "place"
    if request.param == "a file":
        folder.write_text("in the way")
    elif request.param == "absent":
        folder = Path("/proc/self/nowhere")  # and can't be made, not even by root
    else:
        folder.mkdir()
    if request.param == "read-only":
        if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", folder]).returncode:
            pytest.skip("mounting needs root")
        yield request.param, folder
        subprocess.run(["umount", folder], check=True)
    else:
        yield request.param, folder


def in_child(program, args: list[str], largest_file: int | None) -> tuple[int, str]:
    """Exit status and stderr of a program in a process of its own, whose files may have so many bytes only."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.dup2(writer, 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.stderr, sys.stdout = os.fdopen(2, "w"), os.fdopen(1, "w")
            torch.set_num_threads(1)
            if largest_file is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
            program.main(args)
            status = 0
        except SystemExit as e:
            status = e.code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status or 0)
    os.close(writer)
    with os.fdopen(reader, errors="replace") as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said


pytestmark = pytest.mark.usefixtures("toys")


@pytest.mark.parametrize("name", list(COMMANDS))
def test_a_place_that_takes_nothing(name, place, files):
    kind, folder = place
    if (kind, name) == ("full", "convert to onnx"):
        pytest.skip("exporting takes half a minute; .pt2 is written in the same way")
    program, args = COMMANDS[name]
    filled = [a.format(**files, at=folder) if "{" in a else a for a in args]
    status, said = in_child(program, filled, largest_file=0 if kind == "full" else None)
    lines = [line for line in said.splitlines() if line.startswith("Error: ")]
    assert (status, len(lines)) == (2, 1), said
    assert "Traceback" not in said
    assert str(folder) in lines[0]
    assert not list(folder.parent.rglob(".*.part"))


def test_a_run_folder_that_goes_away(tmp_path):
    """Moved elsewhere while its training runs."""
    outdir = tmp_path / "runs"
    process = subprocess.Popen(
        command_line(outdir), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    run_until(process, "tick 1 ")
    outdir.rename(tmp_path / "elsewhere")
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == 2, rest
    assert rest.splitlines()[-1].startswith(f"Error: cannot write {outdir}")
    assert "Traceback" not in rest
    assert not outdir.exists()
