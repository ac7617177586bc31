"""The one mechanism that writes files: whole or not at all, through no link, with one line for every failure."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dnnlib import files
from dnnlib.cli import printable
from dnnlib.errors import UserError
from dnnlib.files import WriteError, append, atomic_file, atomic_path, cut, read_json, read_jsonl, write_file
from dnnlib.locks import Lock

ROOT = Path(__file__).parents[2]


def test_a_link_is_replaced_not_followed(tmp_path):
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.write_bytes(b"precious")
    link.symlink_to(victim)
    write_file(link, b"new")
    assert victim.read_bytes() == b"precious"
    assert link.read_bytes() == b"new"
    assert not link.is_symlink()


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_nothing_is_appended_or_cut_through_a_link(link, tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    link(victim, tmp_path / "log.txt")
    for change in (lambda p: append(p, "x"), lambda p: cut(p, 0)):
        with pytest.raises(WriteError, match=r"cannot write .*log\.txt"):
            change(tmp_path / "log.txt")
    assert victim.read_bytes() == b"precious"


def full(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("place", ["_write", "os.fsync", "os.replace"])
def test_a_full_disk_is_one_line_and_leaves_the_old_file(place, tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    monkeypatch.setattr(f"dnnlib.files.{place}", full)
    with pytest.raises(WriteError, match=f"^cannot write {path}: No space left on device$"):
        write_file(path, b"new" * 1_000_000)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_a_failed_write_is_named_whatever_a_library_makes_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_write", full)
    with pytest.raises(WriteError, match="No space"), atomic_file(tmp_path / "x") as file:  # noqa: PT012
        try:
            file.write(bytes(2 << 20))
        except OSError as e:
            raise RuntimeError("the library failed") from e
    assert not os.listdir(tmp_path)


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_file(tmp_path / "x"):
        1 / 0
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "x"):
        (tmp_path / "absent").read_bytes()
    assert not os.listdir(tmp_path)
    with pytest.raises(WriteError, match="No such file"):
        write_file(tmp_path / "no folder" / "x", b"")
    with pytest.raises(WriteError, match="No such file"), atomic_path(tmp_path / "x"):
        pass  # the library wrote nothing
    assert not os.listdir(tmp_path)


def test_a_half_appended_line_is_taken_back(tmp_path, monkeypatch):
    path = tmp_path / "log.txt"
    append(path, "one\n")
    write, calls = os.write, []

    def half(handle, data):
        calls.append(1)
        return write(handle, data[:2]) if len(calls) == 1 else full()

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(WriteError, match="No space"):
        append(path, "two\n")
    assert path.read_text() == "one\n"


BAD_JSON = {
    "not UTF-8": b'{"a": "\xff"}',
    "nested": b"[" * 100_000,
    "long number": b'{"a": ' + b"9" * 6000 + b"}",
    "cut": b'{"a": ',
    "empty": b"",
}


@pytest.mark.parametrize("name", list(BAD_JSON))
def test_bad_json_is_one_line(name, tmp_path):
    (tmp_path / "x.json").write_bytes(BAD_JSON[name])
    with pytest.raises(UserError, match="is no JSON that can be read") as e:
        read_json(tmp_path / "x.json")
    assert "\n" not in str(e.value)
    (tmp_path / "x.jsonl").write_bytes(b'{"a": 1}\n' + BAD_JSON[name] + b'\n3\n{"b": 2}\n')
    assert read_jsonl(tmp_path / "x.jsonl") == [{"a": 1}, {"b": 2}]


def test_a_huge_file_or_a_pipe_is_not_read(tmp_path):
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(files.MAX_JSON + 1)
    with pytest.raises(UserError, match="more than the 16,777,216"):
        read_json(tmp_path / "huge")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="no plain file"):
        read_json(tmp_path / "pipe")


def test_a_lock_ends_with_its_process(tmp_path):
    """Held by another process, then by one that is killed."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        held = Lock(tmp_path / ".lock", "taken")
        assert held
        os.write(writer, b"x")
        signal.pause()
    os.read(reader, 1)
    with pytest.raises(UserError, match="^taken$"):
        Lock(tmp_path / ".lock", "taken")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with Lock(tmp_path / ".lock", "taken"), pytest.raises(UserError, match="taken"):
        Lock(tmp_path / ".lock", "taken")
    Lock(tmp_path / ".lock", "taken").release()
    assert not os.listdir(tmp_path)


def test_terminals_are_given_nothing_to_obey():
    assert printable("a\x1b[2J\x07\u202e\ud800b\n\tc\xe9") == "a\\x1b[2J\\x07\\u202e\\ud800b\n\tc\xe9"


def test_the_scripts_need_nothing_that_only_unix_has():
    """On Windows there is no fcntl and no resource."""
    code = "import sys, torch; sys.modules.update(fcntl=None, resource=None); import train, generate, calc_metrics"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
