"""`make gpu-check` tried on the CPU: each of its steps at a tiny size, and what it says where there is no GPU."""

import json

import pytest
import torch
from click.testing import CliRunner
from support.gpu.__main__ import STEPS, main
from support.gpu.steps import require

from torch_utils.ops.build import library
from training.training_loop import Trainer

TRAINING = ("train", "resume", "processes", "presets")


def run(tmp_path, *names):
    out = tmp_path / "check.json"
    result = CliRunner().invoke(main, [*names, "--device=cpu", "--small", f"--out={out}"])
    return result, json.loads(out.read_text())


@pytest.mark.skipif(not library.ensure("cpu").loaded, reason="no compiled kernels here")
@pytest.mark.parametrize("name", [name for name in STEPS if name not in TRAINING])
def test_a_step(name, tmp_path):
    result, content = run(tmp_path, name)
    assert result.exit_code == 0, result.output
    assert content["card"] == "cpu"
    assert content["small"]
    (step,) = content["steps"]
    assert step["ok"]
    assert step["measured"]
    if name == "op-times":
        assert isinstance(step["measured"]["na2d flex_attention torch.float32"], float)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n == "presets" else pytest.mark.soak) for n in TRAINING])
def test_a_step_that_trains(name, tmp_path):
    result, content = run(tmp_path, name)
    assert result.exit_code == 0, result.output
    measured = content["steps"][0]["measured"]
    if name == "presets":
        assert all(isinstance(value, dict) for value in measured.values()), measured
    if name == "resume":
        assert measured["largest relative difference"] == {"continued": 0.0, "repeated": 0.0}
    if name == "processes":
        assert measured["processes"] == 2
        assert measured["from one process"]["torchrun"] < 1e-4
        assert measured["from one process"]["many"] < 1e-4


def test_a_failure_is_one_line_and_an_exit_status(tmp_path, monkeypatch):
    monkeypatch.setitem(STEPS, "build", lambda setting: require(False, "no luck today"))
    monkeypatch.setitem(STEPS, "ops", lambda setting: {}["nothing"])
    result, content = run(tmp_path, "build", "ops")
    assert result.exit_code == 1
    assert "FAILED  build" in result.output
    assert "no luck today" in result.output
    assert "failed: build, ops" in result.output
    assert "KeyError" in content["steps"][1]["error"]
    assert "Traceback" in content["steps"][1]["traceback"]


def test_a_preset_that_cannot_train_fails_the_step_but_one_too_large_does_not(tmp_path, monkeypatch):
    def fails(error):
        def build(self, *args):
            raise error

        monkeypatch.setattr(Trainer, "__init__", build)
        return run(tmp_path, "presets")

    result, content = fails(ValueError("no luck today"))
    assert result.exit_code == 1
    assert content["steps"][0]["error"] == "ada: ValueError: no luck today; bcr: ValueError: no luck today"
    result, content = fails(torch.OutOfMemoryError("CUDA out of memory"))
    assert result.exit_code == 0
    assert set(content["steps"][0]["measured"].values()) == {"this GPU's memory is too small"}


def test_without_a_gpu_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = CliRunner().invoke(main, [f"--out={tmp_path / 'check.json'}"])
    assert result.exit_code == 0
    assert result.output.startswith("gpu-check: skipped, ")
    assert not (tmp_path / "check.json").exists()


def test_attention_by_flex_is_ours():
    """The rival that op-times measures computes the same thing."""
    from support.gpu.speed import flex

    from torch_utils.ops.neighborhood_attention import na2d

    q, k, v = torch.randn(3, 1, 9, 8, 2, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(flex(q, k, v, 3)(), na2d(q, k, v, 3), atol=1e-5)
