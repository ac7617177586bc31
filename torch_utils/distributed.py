"""Processes that work together: starting them, what they share, and how all of them end when one fails.

Every function also works in a single process without a group.
"""

import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from dnnlib.errors import UserError, disk_error
from torch_utils import devices
from torch_utils.rendezvous import compare, from_environment, meet, under_torchrun, world

T = TypeVar("T")

GRACE = 20.0  # seconds that the others have to notice that a process has ended, before they are ended too
_KILL_AFTER = 10.0  # further seconds until they are killed
_INTERRUPTED = 130  # exit status of a process that Ctrl-C ended, as shells have it
_LOST = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "connection refused")


def rank() -> int:
    """This process's number, 0 for the one that writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first_process() -> bool:
    """Whether this process is the one that speaks to the user, also before there is a group."""
    return world()[0] == 0 if under_torchrun() else rank() == 0


def process_count(asked: int | None) -> int:
    """Processes that a command runs in: torchrun's, or as asked, or one per GPU, or one. UserError if impossible."""
    if under_torchrun():
        count = world()[1]
        if asked not in (None, count):
            raise UserError(f"--gpus={asked}, but torchrun started {count} processes; leave --gpus out")
        return count
    available = devices.count()
    if asked is not None and 0 < available < asked:
        raise UserError(f"--gpus={asked}, but this machine has {available}")
    return asked or max(available, 1)


def own_device() -> torch.device:
    """This process's GPU, made current, or the CPU."""
    return devices.own_device(rank())


# -- what processes share ---------------------------------------------------------------------------------------------


def all_sum(x: torch.Tensor) -> torch.Tensor:
    """Sums `x` over all processes, in place, and returns it."""
    if dist.is_initialized():
        dist.all_reduce(x)
    return x


def all_max(x: torch.Tensor) -> torch.Tensor:
    """Elementwise maximum of `x` over all processes, in place, and returns it."""
    if dist.is_initialized():
        dist.all_reduce(x, op=dist.ReduceOp.MAX)
    return x


def barrier() -> None:
    """Waits until every process is here."""
    if dist.is_initialized():
        dist.barrier()


def copy_from_rank_0(x: torch.Tensor) -> None:
    """Gives `x` in every process the values it has in the first one, in place."""
    if dist.is_initialized():
        dist.broadcast(x, src=0)


def agreed(compute: Callable[[], T]) -> T:
    """Runs `compute` in every process; if it fails with a UserError in any, every process raises the first such error.

    Without this a process that stops would leave the others waiting for it.
    """
    result: Any = None
    error: UserError | None = None
    try:
        result = compute()
    except UserError as e:
        error = e
    if world_size() > 1:
        errors: list[Any] = [None] * world_size()
        dist.all_gather_object(errors, error)
        error = next((e for e in errors if e is not None), None)
    if error is not None:
        raise error
    return result


def from_rank_0(compute: Callable[[], T]) -> T:
    """Runs `compute` in the first process only and gives its result (or its UserError) to all.

    Tensors arrive on the device that they had.
    """
    result = agreed(compute if rank() == 0 else _nothing)
    if world_size() > 1:
        box = [result]
        dist.broadcast_object_list(box, src=0)
        result = box[0]
    return result  # type: ignore[return-value]


def _nothing() -> Any:
    return None


# -- starting and ending processes ------------------------------------------------------------------------------------


def run(fn: Callable[..., None], args: tuple[Any, ...], count: int, command: Any = None) -> None:
    """Calls `fn(*args)` in `count` processes that form a group: this very process where that is 1 or torchrun has
    started the others, else new ones on this machine (one GPU each, or sharing the CPU).

    `fn` and `args` must be picklable. `command` is plain data that must be the same in all processes that torchrun has
    started: what the user asked for. SIGTERM, SIGINT and SIGHUP reach every process. When one fails, all end within a
    minute, with one error: the UserError that it raised, a UserError if it was killed, else a RuntimeError with its
    traceback.
    """
    if under_torchrun():
        _in_group(fn, args, *world(), None, command)
    elif count == 1:
        fn(*args)
    else:
        _spawn(fn, args, count)


def _in_group(
    fn: Callable[..., None], args: tuple[Any, ...], rank: int, count: int, address: str | None, command: Any = None
) -> None:
    """`address` is where the processes meet; None: where torchrun says."""
    # The device becomes current before there is a group: else NCCL would make every process of a machine
    # use its first GPU at its first message.
    device = devices.own_device(rank)
    if device.type == "cpu":
        here = from_environment("LOCAL_WORLD_SIZE", 1, 10**6) if "LOCAL_WORLD_SIZE" in os.environ else count
        torch.set_num_threads(max((os.cpu_count() or 1) // here, 1))
    group: dict[str, Any] = {"backend": "nccl", "device_id": device} if device.type == "cuda" else {"backend": "gloo"}
    try:
        if address is None:
            store = meet(rank, count)
            compare(store, command, rank, count)
            group["store"] = dist.PrefixStore("group", store)
        else:
            group["init_method"] = address
        dist.init_process_group(**group, rank=rank, world_size=count)
        fn(*args)
    except RuntimeError as e:
        if isinstance(e, dist.DistError) or any(word in str(e).lower() for word in _LOST):
            raise UserError(f"process {rank} lost contact with another one, which has failed or was killed") from e
        raise
    dist.destroy_process_group()  # not after a failure: without the others it might wait for ever


@dataclass
class _Failure:
    """How a process ended badly."""

    rank: int
    when: float
    message: str
    is_users: bool  # a UserError
    is_killed: bool = False
    is_stopped: bool = False  # by a signal that asks for it

    def error(self, is_interrupted: bool) -> BaseException:
        """What to raise; after Ctrl-C, which `is_interrupted` tells of, a process that stopped is none."""
        if is_interrupted and self.is_stopped:
            return KeyboardInterrupt()
        return UserError(self.message) if self.is_users or self.is_killed else RuntimeError(self.message)


def _spawn(fn: Callable[..., None], args: tuple[Any, ...], count: int) -> None:
    context = multiprocessing.get_context("spawn")
    _start_quiet_tracker()
    address = f"tcp://127.0.0.1:{_free_port()}"
    readers: list[Any] = []
    processes: list[Any] = []
    with _forwarded_signals(processes) as received:
        for rank in range(count):
            reader, writer = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(fn, args, rank, count, address, writer))
            with _held_back():
                process.start()
                processes.append(process)
            writer.close()
            readers.append(reader)
        if received:  # maybe before all were there
            _ask_to_stop(processes)
        is_well = _wait(processes)
    if is_well:
        return
    failures = [f for rank in range(count) if (f := _failure(rank, count, readers[rank], processes[rank]))]
    # The others fail after the first one, because they lost contact with it; a killed one can't tell when.
    raise min(failures, key=lambda f: (not f.is_killed, f.when)).error(is_interrupted=signal.SIGINT in received)


def _start_quiet_tracker() -> None:
    """Python's tracker of semaphores cleans up after a process that was killed; its warning that it did says nothing
    that the user could mend."""
    name = "PYTHONWARNINGS"
    before = os.environ.get(name)
    own = "ignore::UserWarning:multiprocessing.resource_tracker"
    os.environ[name] = own if before is None else f"{before},{own}"
    try:
        multiprocessing.resource_tracker.ensure_running()
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _child(fn: Callable[..., None], args: tuple[Any, ...], rank: int, count: int, address: str, writer: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _let_through()
        _in_group(fn, args, rank, count, address)
    except (UserError, OSError) as e:
        found = disk_error(e) if isinstance(e, OSError) else e
        text = str(found) if found else f"process {rank} failed:\n{traceback.format_exc()}"
        writer.send(_Failure(rank, time.monotonic(), text, is_users=found is not None))
        sys.stdout.flush()
        os._exit(2 if found else 1)
    except KeyboardInterrupt:
        sys.stdout.flush()
        os._exit(_INTERRUPTED)
    except BaseException:
        text = f"process {rank} failed:\n{traceback.format_exc()}"
        writer.send(_Failure(rank, time.monotonic(), text, is_users=False))
        sys.stdout.flush()
        os._exit(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _wait(processes: list[Any]) -> bool:
    """Waits for all to end. Once one has failed, the rest get time to follow, then a signal. Whether all ended well."""
    deadline: float | None = None
    while running := [p for p in processes if p.is_alive()]:
        multiprocessing.connection.wait([p.sentinel for p in running], timeout=1.0)
        if deadline is None and any(p.exitcode for p in processes):
            deadline = time.monotonic() + GRACE
        if deadline is not None and time.monotonic() > deadline:
            _end(running)
    return not any(p.exitcode for p in processes)


def _end(processes: list[Any]) -> None:
    for p in processes:
        p.terminate()
    for p in processes:
        p.join(_KILL_AFTER)
        if p.is_alive():
            p.kill()
            p.join()


def _failure(rank: int, count: int, reader: Any, process: Any) -> _Failure | None:
    if not process.exitcode:
        return None
    if reader.poll():
        try:
            return reader.recv()
        except EOFError:
            pass
    name = signal.Signals(-process.exitcode).name if process.exitcode < 0 else f"exit status {process.exitcode}"
    hint = " (often: out of memory)" if name == "SIGKILL" else ""
    text = f"process {rank} of {count} was ended by {name}{hint}; the others have stopped, run the command again"
    ended_by_us = name == "SIGTERM"
    is_stopped = ended_by_us or process.exitcode == _INTERRUPTED
    return _Failure(rank, time.monotonic(), text, ended_by_us, is_killed=not ended_by_us, is_stopped=is_stopped)


def stop_signals() -> list[signal.Signals]:
    """What asks a process to stop: SIGTERM, SIGINT, and SIGHUP unless it is ignored, as under nohup (or unknown, as on
    Windows)."""
    found = [signal.SIGTERM, signal.SIGINT]
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        found.append(hangup)
    return found


@contextmanager
def _held_back() -> Iterator[None]:
    """Ctrl-C waits, in this process until the end of the block, in one that is started in it until `_let_through`: it
    would interrupt its imports otherwise."""
    if os.name != "posix":
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        _let_through()


def _let_through() -> None:
    if os.name == "posix":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def _ask_to_stop(processes: list[Any]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)


@contextmanager
def _forwarded_signals(processes: list[Any]) -> Iterator[set[int]]:
    """Requests to stop go to the processes, which decide what to do; this one waits for them. Gives what was asked."""
    received: set[int] = set()

    def forward(number: int, frame: Any) -> None:
        received.add(number)
        _ask_to_stop(processes)

    old = {s: signal.signal(s, forward) for s in stop_signals()}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
