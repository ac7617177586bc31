"""--device: what there is, what is asked for, and the accelerators of other makers (played by a stand-in)."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import calc_metrics
import train
from dnnlib.errors import UserError
from torch_utils import devices

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _own_choice(monkeypatch):
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    yield
    os.environ.pop(devices.VARIABLE, None)


@pytest.fixture
def two_xpus(monkeypatch):
    """A machine with two of Intel's GPUs and none of NVIDIA's."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    current = []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("xpu"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "set_device_index", current.append)
    return current


def test_without_a_word_nothing_but_cuda_and_cpu_is_chosen(two_xpus):
    assert devices.available() == ["xpu", "cpu"]
    assert devices.kind() == "cpu"
    assert devices.own_device() == torch.device("cpu")
    assert devices.count() == 0


def test_another_accelerator_by_name(two_xpus, monkeypatch):
    monkeypatch.setenv(devices.VARIABLE, "xpu")
    assert devices.own_device(1) == torch.device("xpu", 1)
    assert two_xpus == [1]
    assert devices.count() == 2


def test_the_cpu_of_a_machine_with_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert devices.kind() == "cuda"
    assert devices.count() == 8
    monkeypatch.setenv(devices.VARIABLE, "cpu")
    assert devices.own_device() == torch.device("cpu")
    assert devices.count() == 0


def test_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setenv(devices.VARIABLE, "mps")
    with pytest.raises(UserError, match="--device=mps: torch finds none here, only cpu"):
        devices.kind()


@pytest.mark.parametrize("command", [train.main, calc_metrics.main])
def test_the_commands_refuse_it_in_one_line(command):
    result = CliRunner().invoke(command, ["--device=tpu", "--cfg=demo" if command is train.main else "--metrics=list"])
    assert result.exit_code == 2
    assert "--device=tpu: torch finds none here" in result.output


def test_generate_takes_it(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "generate.py"), "grid", "--network=none.pkl", "--device=tpu"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stderr.strip() == "Error: --device=tpu: torch finds none here, only cpu" or torch.cuda.is_available()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc's malloc")
def test_large_blocks_are_kept():
    """A block that was freed comes back without new pages (24,576 of them): touching it again hardly ever faults."""
    code = """
import resource, torch
from torch_utils import devices
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(24 << 20).zero_()  # 96 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
devices.keep_large_blocks()
print(*(faults() for _ in range(40)))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert min(map(int, done.stdout.split()[20:])) < 100  # it takes some until the heap has room
