"""`--config=FILE`: a new run with the options of an old one."""

import json
import re

import pytest
from click.testing import CliRunner
from support.tiny_runs import recipe

import train
from training.run.checkpoint import read_config
from training.run.run_folder import RunFolder


@pytest.fixture
def options(tmp_path):
    """The options of a run whose state is long gone."""
    run = RunFolder.create(str(tmp_path / "old"), "tiny", recipe("ada", "total_kimg=0.008", "loss.r1_gamma=3"))
    run.close()
    return run.path / "training_options.json"


def call(*args):
    result = CliRunner().invoke(train.main, ["--gpus=1", *args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def test_a_new_run_has_the_old_options_and_what_the_command_changes(options, tmp_path):
    before = options.read_text()
    done = call(f"--config={options}", f"--outdir={tmp_path}/new", "--kimg=0.004", "--set=seed=5")
    assert done.exit_code == 0, done.output
    (folder,) = (tmp_path / "new").iterdir()
    old, new = read_config(options.parent), read_config(folder)
    assert (new.total_kimg, new.seed, new.loss.r1_gamma) == (0.004, 5, 3)
    assert (new.G, new.D, new.ada, new.G_opt) == (old.G, old.D, old.ada, old.G_opt)
    assert options.read_text() == before
    assert folder.name.startswith("00000-noto_emoji_32")


def test_the_same_command_goes_on_with_the_new_run(options, tmp_path):
    command = [f"--config={options}", f"--outdir={tmp_path}/new"]
    assert call(*command).exit_code == 0
    changed = call(*command, "--kimg=0.012")
    assert changed.exit_code == 0
    assert len(list((tmp_path / "new").iterdir())) == 2  # another length is another training
    assert json.loads(call(*command, "--dry-run").output.rpartition("}")[0] + "}")["total_kimg"] == 0.008


def test_what_does_not_go_together(options, tmp_path):
    for more, message in (
        (["--cfg=demo"], "says everything that --cfg=demo would"),
        ([f"--resume={options.parent}"], "leave --config out"),
    ):
        done = call(f"--config={options}", *more)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert message in done.stderr
    assert "is a folder; name the training_options.json in it" in call(f"--config={options.parent}").stderr
    assert "gone.json is no file" in call(f"--config={tmp_path}/gone.json").stderr
    (tmp_path / "bad.json").write_text('{"G": {"kind": "nothing"}}')
    done = call(f"--config={tmp_path}/bad.json")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "bad.json" in done.stderr


def test_help_has_every_option_once_under_a_heading():
    said = CliRunner().invoke(train.main, ["--help"], terminal_width=100).output
    for param in train.main.params:
        assert len(re.findall(rf"^  (?:-\w, )?{param.opts[-1]}\b(?!-)", said, re.MULTILINE)) == 1, param.opts
    headings = re.findall(r"^(\w[^:\n]*):$", said, re.MULTILINE)
    assert headings == [*train.GROUPS, "Others"]
    assert re.search(r"^Others:\n  --import ", said, re.MULTILINE)
