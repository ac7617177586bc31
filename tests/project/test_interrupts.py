"""Ctrl-C, full disks, numbers out of range: one line and the right exit status, from every command."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dnnlib import cache, cli
from dnnlib.errors import UserError, disk_error

ROOT = Path(__file__).parents[2]


def command(body, **options):
    @click.command(cls=cli.Command, **options)
    def main() -> None:
        body()

    return main


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("goes_on", "words"), [(True, "goes on where this one stopped"), (False, "from the beginning")]
)
def test_interrupted_commands_say_what_the_same_command_does(goes_on, words):
    done = CliRunner().invoke(command(interrupt, goes_on=goes_on), [])
    assert done.exit_code == 130
    assert done.output.strip() == f"interrupted; the same command again {'starts ' if not goes_on else ''}{words}"


def test_interrupted_commands_of_a_group():
    group = cli.Group("g")
    group.add_command(command(interrupt, goes_on=True), "sub")
    done = CliRunner().invoke(group, ["sub"])
    assert (done.exit_code, done.output.count("\n")) == (130, 2)


SCRIPTS = ["train.py", "generate.py", "calc_metrics.py", "dataset_tool.py"]
MODULES = ["training.networks", "training.sampling.demo", "torch_utils.ops"]


@pytest.mark.parametrize("program", [*SCRIPTS, *MODULES])
def test_interrupt_during_imports(program, tmp_path):
    """The import of a library, held up here, is interrupted: one line, no traceback."""
    slow = "numpy" if program == "dataset_tool.py" else "torch"  # which is imported before click
    (tmp_path / f"{slow}.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, *(["-m", program] if program in MODULES else [str(ROOT / program)])],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test runner in the background may have been started with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.strip()) == (130, "interrupted before anything was done")


# -- disks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENOENT, errno.EDQUOT, errno.EIO])
def test_disk_errors_are_one_line(number):
    def body() -> None:
        raise OSError(number, os.strerror(number), "out/x.png")

    done = CliRunner().invoke(command(body), [])
    assert done.exit_code == 2
    assert done.output.startswith(f"Error: out/x.png: {os.strerror(number)}; ")
    assert done.output.count("\n") == 1


def test_a_full_disk_without_a_name():
    def body() -> None:
        with open("/dev/full", "w") as file:
            file.write("x" * 10)

    done = CliRunner().invoke(command(body), [])
    assert (done.exit_code, done.output) == (
        2,
        "Error: while writing: No space left on device; free some, or choose another place\n",
    )


def test_other_errors_of_the_system_keep_their_traceback():
    assert disk_error(ConnectionResetError(errno.ECONNRESET, "reset")) is None
    with pytest.raises(ConnectionResetError):
        command(lambda: (_ for _ in ()).throw(ConnectionResetError(errno.ECONNRESET, "reset"))).main([])


# -- numbers ----------------------------------------------------------------------------------------------------------


def all_options():
    import calc_metrics
    import dataset_tool
    import generate
    import train
    from training.networks.__main__ import main as networks_main
    from training.sampling.demo import main as demo_main

    def below(tool):
        yield tool
        for sub in getattr(tool, "commands", {}).values():
            yield from below(sub)

    for top in (train.main, generate.main, calc_metrics.main, dataset_tool.main, networks_main, demo_main):
        for tool in below(top):
            yield from ((tool, option) for option in tool.params)


def test_every_number_is_finite_by_type():
    loose = [
        f"{tool.name} {option.opts[0]}"
        for tool, option in all_options()
        if isinstance(option.type, click.types.FloatParamType | click.FloatRange)
        and not isinstance(option.type, cli.Number)
    ]
    assert not loose


def test_every_seed_is_one_that_numpy_takes():
    wrong = [
        f"{tool.name} {o.opts[0]}" for tool, o in all_options() if "seed" in o.opts[0] and o.type.name == "integer"
    ]
    assert not wrong
    ranges = [o.type for _, o in all_options() if "seed" in o.opts[0] and isinstance(o.type, click.IntRange)]
    assert len(ranges) >= 4
    assert all((r.min, r.max) == (0, 2**32 - 1) for r in ranges)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999"])
def test_numbers_that_are_none(text):
    with pytest.raises(click.BadParameter, match="not a finite number|not in the range"):
        cli.Number(min=0).convert(text, None, None)
    with pytest.raises(click.BadParameter, match="not a finite number"):
        cli.NUMBER.convert(text, None, None)
    assert cli.NUMBER.convert("-1.5", None, None) == -1.5


# -- homes ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as without a passwd entry
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_cache_without_a_home(homeless):
    folder = cache.user_cache()
    assert folder == homeless / f"styleloom-cache-{os.geteuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert cache.user_cache() == folder


def test_cache_with_a_home_that_cannot_be_written(homeless, monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path.replace("~", "/"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert cache.user_cache().parent == homeless


def test_a_cache_that_others_can_write_is_refused(homeless):
    folder = homeless / f"styleloom-cache-{os.geteuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(UserError, match="is not yours alone; set XDG_CACHE_HOME"):
        cache.user_cache()
    folder.rmdir()
    folder.symlink_to(homeless)
    with pytest.raises(UserError, match="is not yours alone"):
        cache.user_cache()


def test_an_empty_cache_variable_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.user_cache() == tmp_path / ".cache"


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "downloads").write_text("a file in the way")
    with pytest.raises(UserError, match="cannot keep https://127.0.0.1:9/x.pkl at .*; set STYLELOOM_CACHE"):
        cache.fetch("https://127.0.0.1:9/x.pkl", cache_dir=tmp_path)
