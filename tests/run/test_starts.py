"""Starts never collide, a bad old folder blocks none, full disks and damaged files end or are passed over in a line."""

import errno
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from support.tiny_runs import everything, recipe, train_in

from dnnlib import files
from dnnlib.errors import UserError
from training.launch import Place, _folder_to_continue
from training.run.checkpoint import find_unfinished, is_finished, load_state, save_state, write_config
from training.run.report.page import page, write_report
from training.run.run_folder import RunFolder


def create_many(outdir: Path, processes: int, each: int) -> list[int]:
    """Numbers of the run folders that so many processes make at the same time."""
    ready, go = os.pipe()
    pids = []
    for i in range(processes):
        pid = os.fork()
        if pid == 0:
            try:
                os.read(ready, 1)
                for j in range(each):
                    RunFolder.create(str(outdir), f"{i}-{j % 2}", recipe("ada")).close()
            except BaseException as e:
                print(repr(e), file=sys.stderr)
                os._exit(1)
            os._exit(0)
        pids.append(pid)
    os.write(go, b"x" * processes)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * processes
    return [int(p.name[:5]) for p in outdir.iterdir()]


def test_simultaneous_starts_take_different_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr("training.run.run_folder.open_trackers", lambda *a, **k: [])
    numbers = create_many(tmp_path, processes=3, each=5)
    assert len(set(numbers)) == len(numbers) == 15


@pytest.mark.soak
def test_120_of_120_simultaneous_starts(tmp_path, monkeypatch):
    monkeypatch.setattr("training.run.run_folder.open_trackers", lambda *a, **k: [])
    numbers = create_many(tmp_path, processes=3, each=40)
    assert len(set(numbers)) == len(numbers) == 120


BAD_OPTIONS = {"utf8": b'{"preset": "\xff"}', "nested": b'{"a":' * 50_000, "number": b'{"seed": ' + b"9" * 6000 + b"}"}


@pytest.mark.parametrize("name", list(BAD_OPTIONS))
def test_a_bad_old_folder_is_passed_over_with_a_line(name, tmp_path):
    cfg, said = recipe("ada"), []
    good, bad = tmp_path / "00000-x", tmp_path / "00001-x"
    for folder in (good, bad):
        folder.mkdir()
        write_config(folder, cfg)
        save_state(folder, {"nimg": 8})
    (bad / "training_options.json").write_bytes(BAD_OPTIONS[name])
    assert find_unfinished(str(tmp_path), cfg, said.append) == good
    assert len(said) == 1
    assert "00001-x" in said[0]
    assert "\n" not in said[0]


def test_a_run_is_finished_when_its_metrics_are(tmp_path):
    """Killed during the last measurement: the same command goes on, and --resume doesn't refuse."""
    cfg = recipe("ada", 'metrics=["kid2k_lite0"]', "total_kimg=0.008")
    folder = tmp_path / "00000-x"
    folder.mkdir()
    write_config(folder, cfg)
    save_state(folder, {"nimg": 8, "last_snapshot": "network-snapshot-000000.pkl"})
    assert not is_finished(folder, cfg)
    assert find_unfinished(str(tmp_path), cfg) == folder
    assert _folder_to_continue(cfg, Place("", "", str(folder))) == folder
    line = {"results": {"kid2k_lite0": 1.0}, "snapshot_pkl": "network-snapshot-000000.pkl"}
    (folder / "metric-kid2k_lite0.jsonl").write_text(json.dumps(line) + "\n")
    assert is_finished(folder, cfg)
    assert find_unfinished(str(tmp_path), cfg) is None
    with pytest.raises(UserError, match="has reached kimg"):
        _folder_to_continue(cfg, Place("", "", str(folder)))


def test_metrics_missing_at_the_end_are_measured(tmp_path, monkeypatch):
    cfg = recipe("ada", 'metrics=["kid2k_lite0"]', "total_kimg=0.008")
    measured = []
    monkeypatch.setattr("training.session.Session._measure", lambda s, *what: measured.append((s.trainer.nimg, *what)))
    train_in(tmp_path / "x", cfg)
    train_in(tmp_path / "x", cfg)
    assert [m[0] for m in measured] == [0, 8, 8], "at both snapshots, and again because nothing was written"


DAMAGES = {
    "fakes_init.png": [b"", b"\x89PNG\r\n\x1a\n", b"text", bytes(100)],
    "reals.png": [b"", b"\x89PNG\r\n\x1a\n" + bytes(40)],
    "metric-x.jsonl": [b"\xff\n", b"[1]\n", b'{"results": 3}\n', b'{"results": {"x": "y"}}\n', b'{"results": {}}\n'],
    "metric-fid.jsonl": [b'{"results": {"a": NaN}, "snapshot_pkl": 3}\n', b'{"results": {"a": 1}}\n', b"{" * 9999],
    "stats.jsonl": [b"{}\n", b"[]\n", b'{"Loss/G/loss": 3}\n', b'{"Progress/kimg": {"mean": "x"}}\n', b"\x00\n"],
    "training_options.json": [b"", b"[]", b"{}", b'{"G": 3}'],
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ended") / "00000-x"
    train_in(folder, recipe("ada", "total_kimg=0.008"))
    return folder


@pytest.mark.parametrize("name", list(DAMAGES))
def test_a_report_never_stops_a_training(name, ended, tmp_path):
    """Whatever is damaged in the folder, the page is made, with all the parts that are not concerned."""
    folder = tmp_path / "00000-x"
    shutil.copytree(ended, folder)
    for damage in DAMAGES[name]:
        (folder / name).write_bytes(damage)
        assert write_report(folder) is None
        assert "Environment" in page(folder)
        if name != "training_options.json":
            assert "Settings" in page(folder)
        train_in(folder, recipe("ada", "total_kimg=0.016")) if damage == DAMAGES[name][0] else None


def test_a_report_that_cannot_be_written_is_a_line(ended, tmp_path):
    shutil.copytree(ended, tmp_path / "x")
    (tmp_path / "x" / "report.html").unlink()
    (tmp_path / "x" / "report.html").mkdir()
    problem = write_report(tmp_path / "x")
    assert "no report: cannot write" in problem
    assert "\n" not in problem


class Disk:
    """Counts what is written through dnnlib.files; from write number `full_from` on the disk is full."""

    def __init__(self, monkeypatch, full_from: int | None) -> None:
        self.count = 0
        monkeypatch.setattr(files, "_write", self._wrap(files._write, full_from))
        monkeypatch.setattr(os, "write", self._wrap(os.write, full_from))

    def _wrap(self, original, full_from):
        def write(*args):
            self.count += 1
            if full_from is not None and self.count >= full_from:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*args)

        return write


def check_full_disk(tmp_path: Path, monkeypatch, every: int) -> int:
    """Trains with a disk that is full from each `every`-th write on; then there is space, and the run ends equal."""
    cfg = recipe("ada", "total_kimg=0.016")
    monkeypatch.setattr("training.run.run_folder.open_trackers", lambda *a, **k: [])
    with monkeypatch.context() as patch:
        disk = Disk(patch, None)
        wanted = everything(train_in(tmp_path / "whole", cfg))
    places = range(1, disk.count + 1, every)
    for place in places:
        folder = tmp_path / f"run{place}"
        with monkeypatch.context() as patch:
            Disk(patch, place)
            try:
                train_in(folder, cfg)
            except UserError as e:
                assert "cannot write" in str(e)  # noqa: PT017 (the last write may be the report's)
                assert "\n" not in str(e)  # noqa: PT017
        if (folder / "training-state.pt").exists():
            load_state(folder)
        found = everything(train_in(folder, cfg))
        assert all(found[k].equal(wanted[k]) for k in wanted)
        shutil.rmtree(folder)
    return len(places)


def test_full_disk_during_a_training(tmp_path, monkeypatch):
    assert check_full_disk(tmp_path, monkeypatch, every=11) >= 3


@pytest.mark.soak
def test_full_disk_at_each_write_of_a_training(tmp_path, monkeypatch):
    print("writes:", check_full_disk(tmp_path, monkeypatch, every=1))
