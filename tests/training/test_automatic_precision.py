"""--precision=auto: what it chooses, that it measures once, and that a run keeps what it began with."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from support.tiny_runs import recipe

from dnnlib.cache import CACHE_VARIABLE
from dnnlib.errors import UserError
from training import launch
from training.config import TrainingConfig
from training.run.checkpoint import OPTIONS_FILE, find_unfinished, read_config, settings_to_continue
from training.step import automatic
from training.step.automatic import VARIABLE, automatic_precision, bfloat16_speedup

CPU = torch.device("cpu")


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """What a measurement would find, and how often there was one."""
    state = SimpleNamespace(speedups=[3.0, 2.0], calls=0)

    def speedup(prepare):
        state.calls += 1
        return state.speedups[state.calls % 2]

    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(automatic, "_speedup", speedup)
    return state


@pytest.mark.parametrize(
    ("speedups", "expected"), [([3, 2], "bfloat16"), ([1.5, 1.5], "bfloat16"), ([9, 1.4], "float32")]
)
def test_both_products_and_convolutions_must_gain(measured, speedups, expected):
    measured.speedups = speedups
    precision, why = automatic_precision(recipe("ada"), CPU)
    assert precision == expected
    assert why == f"bfloat16 runs at {min(speedups):.2g} times its speed here" or expected == "bfloat16"


def test_it_measures_once_for_a_machine_and_its_settings(measured, monkeypatch, tmp_path):
    assert [bfloat16_speedup() for _ in range(3)] == [2.0] * 3
    assert measured.calls == 2
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "another")
    bfloat16_speedup()
    assert measured.calls == 4
    (file,) = (tmp_path / "cache").iterdir()
    assert len(json.loads(file.read_text())) == 2
    file.write_text("[broken")
    assert bfloat16_speedup() == 2.0
    assert measured.calls == 6


def test_a_cache_that_cannot_be_written_is_no_obstacle(measured, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "below"))
    assert bfloat16_speedup() == 2.0


def test_the_measurement_itself():
    for prepare in (automatic._products, automatic._convolutions):
        assert automatic._speedup(prepare) > 0
        assert prepare(torch.bfloat16)().dtype == torch.bfloat16


def test_what_needs_no_measurement(measured, monkeypatch):
    assert automatic_precision(recipe("ada"), torch.device("cuda"))[0] == "float32"
    from training.networks.generators.styleformer import SynthesisNetwork

    with monkeypatch.context() as patch:
        patch.delattr(SynthesisNetwork, "resolution_modules")
        assert automatic_precision(recipe("ada"), CPU) == ("float32", "these networks know no other precision")
    monkeypatch.setenv(VARIABLE, "bfloat16")
    assert automatic_precision(recipe("bcr"), CPU) == ("bfloat16", f"{VARIABLE} says so")
    monkeypatch.setenv(VARIABLE, "int8")
    with pytest.raises(UserError, match=f"{VARIABLE}=int8: choose float32 or bfloat16"):
        automatic_precision(recipe("bcr"), CPU)
    assert measured.calls == 0


def test_a_run_keeps_the_precision_it_began_with(measured, tmp_path, capfd):
    """The same command on a machine that would choose otherwise; the folder named; another precision asked for."""
    cfg = recipe("ada", "total_kimg=0.008")
    assert cfg.precision == "auto"

    def train(cfg: TrainingConfig, folder: str | None = None) -> TrainingConfig:
        launch.launch(cfg, launch.Place(str(tmp_path), "run", folder))
        folders = [p for p in tmp_path.iterdir() if p.name.startswith("0000")]
        assert len(folders) == 1
        return read_config(folders[0])

    assert train(cfg).precision == "bfloat16"
    assert "precision  bfloat16: bfloat16 runs at 2 times its speed here" in capfd.readouterr().out
    measured.speedups = [1.0, 1.0]
    (tmp_path / "cache" / "bfloat16-speedup.json").unlink()
    run = tmp_path / "00000-run"
    assert settings_to_continue(run, cfg).precision == "bfloat16"
    assert train(replace(cfg, total_kimg=0.016), str(run)).precision == "float32"  # auto was asked for anew
    assert find_unfinished(str(tmp_path), replace(cfg, precision="float16", total_kimg=0.024)) is None


def test_runs_of_earlier_versions_are_recognised(measured, tmp_path):
    """They recorded float32, and a number of resolutions that meant nothing then."""
    cfg = recipe("ada", "precision=float32")
    launch.launch(cfg, launch.Place(str(tmp_path), "run"))
    options = tmp_path / "00000-run" / OPTIONS_FILE
    recorded = json.loads(options.read_text())
    options.write_text(json.dumps(recorded | {"half_resolutions": 4, "total_kimg": 1.0}))
    same = recipe("ada", "total_kimg=1")
    assert find_unfinished(str(tmp_path), same) == tmp_path / "00000-run"
    assert settings_to_continue(tmp_path / "00000-run", same).precision == "float32"
