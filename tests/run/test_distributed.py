"""Several processes train as one does; when one dies, all end with one error; torchrun starts them again."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.tiny_runs import everything, ranks_train, recipe, trainer
from test_resume import command_line, run_until

from dnnlib.errors import UserError
from torch_utils import distributed

ROOT = Path(__file__).parents[2]
STEPS = 20


@pytest.mark.parametrize("name", ["ada", "gat"])
def test_two_processes_train_as_one(name, tmp_path):
    """2 gloo processes with a micro-batch each, and 1 process that accumulates the same two."""
    out = tmp_path / "two.pt"
    averages, steps = "ema.posthoc=[0.05,0.1]", {"ada": STEPS, "gat": 6}[name]
    distributed.run(ranks_train, (recipe(name, "gpus=2", averages), steps, None, str(out)), 2)
    two = torch.load(out)
    one = trainer(recipe(name, averages))
    for _ in range(steps):
        one.step()
    alone = everything(one)
    assert alone.keys() == two.keys()
    assert "state.stats.Loss/G/loss" in alone
    assert "state.averages.0.1.mapping.w_avg" in alone
    for name, value in alone.items():
        error = (value.double() - two[name].double()).norm() / value.double().norm().clamp(min=1e-12)
        assert error <= 1e-6, f"{name}: {error}"
    assert name != "ada" or float(alone["state.modules.augment_pipe.p"]) != 0.5, "ADA moved"


def test_a_killed_process_ends_all(tmp_path):
    start = time.monotonic()
    with pytest.raises(UserError, match="process 1 of 2 was ended by SIGKILL") as e:
        distributed.run(ranks_train, (recipe("ada", "gpus=2"), STEPS, 2, str(tmp_path / "never.pt")), 2)
    assert "\n" not in str(e.value)
    assert time.monotonic() - start < 60
    assert not (tmp_path / "never.pt").exists()


def test_a_users_error_in_one_process_is_the_error(tmp_path):
    """Both processes fail to open the data set; one line comes out."""
    cfg = recipe("ada", "gpus=2")
    cfg.data.path = str(tmp_path / "missing.zip")
    with pytest.raises(UserError, match="there is no data set at"):
        distributed.run(ranks_train, (cfg, 1, None, ""), 2)


def test_every_process_gets_the_first_error_or_the_result(monkeypatch):
    """Without a group: what one process alone sees."""
    assert distributed.from_rank_0(lambda: 3) == 3
    with pytest.raises(UserError, match="bad"):
        distributed.agreed(_fails)
    x = torch.ones(2)
    assert distributed.all_sum(x) is x
    distributed.copy_from_rank_0(x)
    distributed.barrier()


def _fails() -> None:
    raise UserError("bad")


def test_the_number_of_processes(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert distributed.process_count(None) == 1
    assert distributed.process_count(3) == 3
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert distributed.process_count(None) == 2
    with pytest.raises(UserError, match="this machine has 2"):
        distributed.process_count(3)
    for name, value in {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    assert distributed.process_count(None) == 4
    assert not distributed.is_first_process()
    with pytest.raises(UserError, match="torchrun started 4"):
        distributed.process_count(2)


def torchrun(*options: str) -> list[str]:
    return [str(Path(sys.executable).parent / "torchrun"), *options, "--nproc-per-node=2"]


def workers_of(pid: int) -> list[int]:
    text = subprocess.run(["pgrep", "-P", str(pid), "-f", "train.py"], capture_output=True, text=True).stdout
    return [int(p) for p in text.split()]


@pytest.mark.soak
def test_torchrun_restarts_and_the_run_goes_on(tmp_path):
    """A rank is killed; the agent starts both again; they continue the run; SIGTERM stops it."""
    command = [*torchrun("--standalone", "--max-restarts=2"), *command_line(tmp_path, "--batch-gpu=2")[1:]]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    agent = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    run_until(agent, "tick 1 ")
    os.kill(workers_of(agent.pid)[1], signal.SIGKILL)
    seen = run_until(agent, "tick 2 ")
    assert "continuing " in seen
    agent.send_signal(signal.SIGTERM)
    rest = agent.communicate(timeout=120)[0]
    assert "everything is saved" in rest
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.soak
def test_two_agents_train_one_run(tmp_path):
    """Two torchrun agents meet on localhost, as two machines would."""
    meet = ("--nnodes=2", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:29517", "--rdzv-id=styleloom")
    command = [*torchrun(*meet), *command_line(tmp_path, "--batch-gpu=1", "--kimg=0.04")[1:]]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    agents = [
        subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    output = "".join(agent.communicate(timeout=300)[0] for agent in agents)
    assert [agent.returncode for agent in agents] == [0, 0], output
    assert len(re.findall(r"^done: ", output, re.M)) == 1
    assert len(list(tmp_path.iterdir())) == 1


@pytest.fixture
def two_nodes() -> Iterator[list[tuple[str, str]]]:
    """Two network namespaces joined by one cable, as (name, address); nothing else can be reached from either."""
    nodes = [("styleloom-a", "10.77.0.1"), ("styleloom-b", "10.77.0.2")]
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    lines = [f"netns add {name}" for name, _ in nodes]
    lines.append("link add eth-a netns styleloom-a type veth peer name eth-b netns styleloom-b")
    for name, address in nodes:
        lines += [f"-n {name} address add {address}/24 dev eth-{name[-1]}", f"-n {name} link set eth-{name[-1]} up"]
        lines.append(f"-n {name} link set lo up")
    try:
        for line in lines:
            subprocess.run(["ip", *line.split()], check=True, capture_output=True)
        yield nodes
    finally:
        for name, _ in nodes:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.mark.soak
def test_two_machines_train_one_run(tmp_path, two_nodes):
    """Agents that share no network but the cable; the folder is written by the first process only."""
    agents = []
    for name, address in two_nodes:
        meet = ["--nnodes=2", "--rdzv-backend=c10d", "--rdzv-endpoint=10.77.0.1:29517", f"--local-addr={address}"]
        # The namespaces share a host name, by which torchrun would find out who has to open the meeting point.
        meet.append(f"--rdzv-conf=is_host={address == '10.77.0.1'}")
        command = ["ip", "netns", "exec", name, *torchrun(*meet)]
        command += command_line(tmp_path / name, "--batch-gpu=1", "--kimg=0.04")[1:]
        env = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": f"eth-{name[-1]}"}
        agents.append(
            subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    output = "".join(agent.communicate(timeout=300)[0] for agent in agents)
    assert [agent.returncode for agent in agents] == [0, 0], output
    assert len(re.findall(r"^done: ", output, re.M)) == 1
    assert len([folder for folder in tmp_path.iterdir() if list(folder.iterdir())]) == 1


@pytest.mark.parametrize("local", [None, "1"])
def test_the_gpu_is_chosen_before_nccl_starts(local, monkeypatch):
    """By a fake: the number on this machine where torchrun gives one, else the rank."""
    order = []
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local is not None:
        monkeypatch.setenv("LOCAL_RANK", local)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: order.append(("current", index)))
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda **group: order.append(group))
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: order.append("ended"))
    distributed._in_group(lambda: order.append("work"), (), 3, 4, "tcp://127.0.0.1:1")
    index = 3 if local is None else 1
    assert order[0] == ("current", index)
    assert order[1]["backend"] == "nccl"
    assert order[1]["device_id"] == torch.device("cuda", index)
    assert order[2:] == ["work", "ended"]
