"""Random damage to network, state and option files: an error of one line, or a result; in bounded time and memory."""

import json
import os
import random
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support import official_files
from support.tiny_runs import recipe, train_in, trainer
from test_network_file_attacks import mutated

from dnnlib.errors import UserError
from training import networks
from training.options import check_config
from training.run.checkpoint import STATE_FILE, load_state, read_config, write_config

FORMATS = official_files.FOLDER.parent / "formats"
MEMORY = 2 * 2**30  # bytes more than before the first file
SECONDS = 20  # for each file
ODD = [0, -1, 1, 3, 2**31, 2**53 + 1, 2**70, 0.5, 1e308, float("nan"), float("inf"), "", "x", "../x", "x" * 5000]
ODD += [True, None, [], {}, [0], [[]] * 50, {"a": 1}, [2**16] * 12, "\x1b[2J", "\ud800"]


def swapped(value, rng: random.Random):
    """Plain data with one of its parts replaced by something odd, taken out, or doubled."""
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.1:
        return rng.choice(ODD)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key, copy = rng.choice(keys), value.copy()
    match rng.randrange(12):
        case 0:
            del copy[key]
        case 1 if isinstance(copy, dict):
            copy[rng.choice(["x", "kind", "G", ""])] = rng.choice(ODD)
        case 1:
            copy += copy
        case _:
            copy[key] = swapped(copy[key], rng)
    return copy


def odd_tensor(t: torch.Tensor, rng: random.Random) -> object:
    changes = [lambda: t.double(), lambda: t.flatten()[:-1], lambda: t[None], lambda: t.to(torch.int32)]
    changes += [lambda: torch.full_like(t, float("nan")), lambda: torch.zeros(10_000), lambda: rng.choice(ODD)]
    changes += [lambda: t.new_zeros(()).expand(t.shape), lambda: t.T if t.dim() == 2 else t]
    return rng.choice(changes)()


def swapped_state(value, rng: random.Random):
    """A training state with one part replaced."""
    if isinstance(value, torch.Tensor):
        return odd_tensor(value, rng)
    if isinstance(value, dict) and value and rng.random() < 0.95:
        key = rng.choice(list(value))
        return {**value, key: swapped_state(value[key], rng)}
    return swapped(value, rng)


class Network:
    """Bytes of a network file, damaged; whatever is read is built."""

    def __init__(self, name: str) -> None:
        self.name, self.data = name, (FORMATS / name).read_bytes()

    def __call__(self, seed: int, folder: Path) -> None:
        path = folder / self.name
        path.write_bytes(mutated(self.data, random.Random(seed)))
        networks.load(path)


class State:
    """Bytes of a training state, damaged, or one of its values swapped; whatever is read is taken by a trainer."""

    def __init__(self, folder: Path) -> None:
        train_in(folder / "run", recipe("ada", "total_kimg=0.008"))
        self.data = (folder / "run" / STATE_FILE).read_bytes()
        self.state = load_state(folder / "run")
        self.trainer = trainer(recipe("ada"))

    def __call__(self, seed: int, folder: Path) -> None:
        rng = random.Random(seed)
        if seed % 2:
            (folder / STATE_FILE).write_bytes(mutated(self.data, rng))
        else:
            torch.save(swapped_state(self.state, rng), folder / STATE_FILE)
        self.trainer.load_state(load_state(folder))


class Options:
    """training_options.json, its bytes damaged or a value swapped; what is read is checked as before a training."""

    def __init__(self, folder: Path) -> None:
        write_config(folder, recipe("ada"))
        self.data = (folder / "training_options.json").read_bytes()

    def __call__(self, seed: int, folder: Path) -> None:
        rng = random.Random(seed)
        odd = mutated(self.data, rng) if seed % 2 else json.dumps(swapped(json.loads(self.data), rng)).encode()
        (folder / "training_options.json").write_bytes(odd)
        check_config(read_config(folder))


def try_all(work: Callable[[int, Path], None], seeds: range, folder: Path) -> int:
    """Runs `work` for every seed in a process of bounded memory, with a bound on the time of each; how many errors."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY, resource.RLIM_INFINITY))
            torch.set_num_threads(1)
            refused = sum(_is_refused(work, seed, folder) for seed in seeds)
            os.write(writer, str(refused).encode())
        except BaseException:
            traceback.print_exc(file=sys.stderr)
            os._exit(1)
        os._exit(0)
    os.close(writer)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, f"ended with {status}"
    with os.fdopen(reader) as file:
        return int(file.read())


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _is_refused(work: Callable[[int, Path], None], seed: int, folder: Path) -> bool:
    signal.alarm(SECONDS)  # its default action ends the process, which the parent takes for a failure
    try:
        work(seed, folder)
    except UserError as e:
        assert "\n" not in str(e), f"seed {seed}"  # noqa: PT017 (it need not be raised)
        return True
    except BaseException as e:
        raise AssertionError(f"seed {seed}") from e
    finally:
        signal.alarm(0)
    return False


KINDS = {
    "v1.pkl": lambda folder: Network("v1.pkl"),
    "v1.safetensors": lambda folder: Network("v1.safetensors"),
    "state": State,
    "options": Options,
}
needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks /proc for the memory used")


def check(kind: str, count: int, folder: Path) -> None:
    refused = try_all(KINDS[kind](folder), range(count), folder)
    print(f"{kind}: {refused} of {count} refused")
    assert refused > count // 3


@needs_proc
@pytest.mark.parametrize("kind", list(KINDS))
def test_damage_ends_in_a_line(kind, tmp_path):
    check(kind, 60, tmp_path)


@needs_proc
@pytest.mark.soak
@pytest.mark.parametrize("kind", list(KINDS))
def test_damage_ends_in_a_line_20000_times(kind, tmp_path):
    check(kind, 5000, tmp_path)
