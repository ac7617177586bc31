"""Processes that a launcher starts: given different commands, or unable to meet, all end with one line."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dnnlib.errors import UserError
from torch_utils import distributed, rendezvous

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, sys
from dnnlib.errors import UserError
from torch_utils import distributed
try:
    distributed.run(print, ("ran",), 2, json.loads(sys.argv[1]))
except UserError as e:
    print("Error:", e)
    sys.exit(2)
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(commands: list[object], count: int = 2, **env: str) -> list[tuple[int, str]]:
    """Starts a process per command, ranks 0, 1, ... of `count`; their exit statuses and what they printed."""
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    shared |= {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "FATAL"} | env
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(command)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "RANK": str(rank)} | shared,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, command in enumerate(commands)
    ]
    outputs = [process.communicate()[0] for process in processes]
    return [(process.returncode, output) for process, output in zip(processes, outputs)]


def test_different_commands_are_one_error():
    commands = [{"config": {"seed": 0, "batch": 4}, "new": False}, {"config": {"seed": 1, "batch": 4}, "new": False}]
    ends = start(commands)
    line = "Error: process 1 was started with another command than process 0: config.seed is 1 there and 0 here"
    assert [status for status, _ in ends] == [2, 2]
    assert all(output.startswith(line) and output.count("\n") == 1 for _, output in ends)


def test_equal_commands_run():
    assert start([{"a": [1, "x"]}] * 2) == [(0, "ran\n")] * 2


@pytest.mark.parametrize("port", ["", "x", "0", "70000", "-1", "1e3"])
def test_a_malformed_port_is_a_line(port, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="MASTER_PORT is .*, not a number from 1 to 65535"):
        distributed.run(print, (), 2)
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(UserError, match="RANK is '2', not a number from 0 to 1"):
        distributed.is_first_process()


def test_a_port_that_is_taken_is_a_line(monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(other.getsockname()[1]))
        monkeypatch.setenv(rendezvous.MEET_VARIABLE, "1")
        with pytest.raises(UserError, match="can't meet the others at 127.0.0.1, port .*another program uses it"):
            rendezvous.meet(0, 2)


def test_a_process_that_does_not_come_is_named(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    monkeypatch.setenv(rendezvous.MEET_VARIABLE, "1")
    with pytest.raises(UserError, match="process 0 of 3 waited 1 s in vain for process 1 and 1 more"):
        rendezvous.meet(0, 3)


def test_a_wrong_address_is_a_line(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    monkeypatch.setenv(rendezvous.MEET_VARIABLE, "1")
    with pytest.raises(UserError, match="process 1 of 2 can't meet the others at .*nobody answered within 1 s"):
        rendezvous.meet(1, 2)
