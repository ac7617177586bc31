"""A refused --resume changes nothing of a run, and the first command finds the run again, changed or not."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.tiny_runs import recipe, session

import train
from dnnlib.config import set_field
from dnnlib.errors import UserError
from training.dataset.embedded import EMBEDDED
from training.launch import Place, launch
from training.options import resolve
from training.run.checkpoint import FIRST_OPTIONS_FILE, find_unfinished, load_state, read_config, save_state
from training.run.run_folder import RunFolder


@pytest.fixture
def run(tmp_path) -> Path:
    """An unfinished run of two steps in its outdir."""
    cfg = recipe("ada", "total_kimg=1")
    run = RunFolder.create(str(tmp_path), "tiny", cfg)
    s = session(cfg, run)
    s.trainer.step()
    s.trainer.step()
    run.say("two steps")
    save_state(run.path, s.state() | {"log_sizes": run.log_sizes()})
    run.say("what was logged after the state was saved")
    run.close()
    return run.path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cond=1"], "can't go on with these settings, its G is another network"),
        (["--set", "G.w_dim=24"], "its G is another network: .*look at"),
        (["--set", "D.channel_max=4"], "its D is another network"),
        (["--data=nowhere.zip"], "nowhere.zip"),
        (["--batch=3"], "micro-batch"),
        (["--metrics=fid5k_nothing"], "nothing"),
        (["--kimg=0.004"], "give a larger --kimg"),
    ],
)
def test_refused_resume_changes_nothing(run, options, message, capsys):
    before = contents(run)
    with pytest.raises(SystemExit) as caught:
        train.main([f"--resume={run}", "--gpus=1", *options])
    assert caught.value.code == 2
    assert re.search(message, capsys.readouterr().err)
    assert contents(run) == before


def test_the_first_command_finds_the_run_after_a_refusal(run, tmp_path, capsys):
    with pytest.raises(SystemExit):
        train.main([f"--resume={run}", "--gpus=1", "--cond=1"])
    cfg = recipe("ada", "total_kimg=1")
    assert find_unfinished(str(tmp_path), cfg) == run


def test_resume_names_the_newest_run_and_what_else_it_may_mean(run, tmp_path):
    values = {"resume": "latest"}
    (tmp_path / "00007-without-state").mkdir()
    assert train.run_to_continue(values, None, False, str(tmp_path)) == str(run)
    assert values["resume"] is None
    with pytest.raises(UserError, match="--resume=latest: .*/none holds no run"):
        train.run_to_continue({"resume": "latest"}, None, False, str(tmp_path / "none"))
    with pytest.raises(UserError, match=f"is the state within a run: name its folder, --resume={run}$"):
        train.run_to_continue({"resume": f"{run}/training-state.pt"}, None, False, str(tmp_path))
    with pytest.raises(UserError, match="--resume=nowhere: no run folder, no file, no URL"):
        train.run_to_continue({"resume": "nowhere"}, None, False, str(tmp_path))


def test_the_first_command_finds_a_run_that_was_changed(run, tmp_path, capsys):
    """It goes on with what the run was changed to."""
    cfg = recipe("ada", "total_kimg=1")
    changed = replace(cfg, total_kimg=0.012)
    launch(changed, Place(str(tmp_path), "tiny", str(run)))
    assert read_config(run).total_kimg == 0.012
    assert read_config(run, FIRST_OPTIONS_FILE).total_kimg == 1
    assert find_unfinished(str(tmp_path), cfg) is None, "at the end that it was given last"
    launch(replace(cfg, total_kimg=0.016), Place(str(tmp_path), "tiny", str(run)))
    launch(replace(cfg, total_kimg=0.02), Place(str(tmp_path), "tiny", str(run)))
    options = read_config(run)
    set_field(options, "total_kimg=0.024")
    RunFolder.reopen(run, options, load_state(run)).close()
    launch(cfg, Place(str(tmp_path), "tiny"))
    assert "from kimg 0.0; --new starts afresh" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == [run.name]
    assert read_config(run).total_kimg == 0.024


def test_a_run_keeps_absolute_paths(tmp_path, monkeypatch):
    """And the embedded pictures are found by their name in any folder."""
    (tmp_path / "e.zip").symlink_to(EMBEDDED)
    monkeypatch.chdir(tmp_path)
    cfg, _ = resolve("cifar", 1, {"data": "e.zip"}, [])
    assert cfg.data.path == str(tmp_path / "e.zip")
    cfg, _ = resolve("cifar", 1, {}, ["data.path=e.zip"])
    assert cfg.data.path == str(tmp_path / "e.zip")
    cfg, dataset = resolve("demo", 1, {}, [])
    assert cfg.data.path == EMBEDDED
    assert len(dataset) == 1892
