"""How processes that a launcher (torchrun, or a script of one's own) has started find each other, and make sure that
they have been given the same command."""

import json
import os
import socket
import time
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from dnnlib.errors import UserError

MEET_VARIABLE = "STYLELOOM_MEET_SECONDS"  # for the processes of a run to find each other
_MEET_SECONDS = 45
_STORE_KEY = "styleloom/store"


def under_torchrun() -> bool:
    """Whether torchrun (or a launcher with its environment variables) started this process."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"))


def from_environment(name: str, low: int, high: int) -> int:
    """A whole number that a launcher has set. UserError if it is none, or out of range."""
    text = os.environ.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):
        raise UserError(f"the environment variable {name} is {text!r}, not a number from {low} to {high}")
    return int(text)


def world() -> tuple[int, int]:
    """(rank, number of processes) as the launcher says."""
    count = from_environment("WORLD_SIZE", 1, 10**6)
    return from_environment("RANK", 0, count - 1), count


def _meet_seconds() -> timedelta:
    given = MEET_VARIABLE in os.environ
    return timedelta(seconds=from_environment(MEET_VARIABLE, 1, 10**6) if given else _MEET_SECONDS)


def meet(rank: int, count: int) -> dist.Store:
    """The store of this start of the processes, in which all have said that they are there. UserError if some don't
    come in time, or the place is wrong or taken."""
    port = from_environment("MASTER_PORT", 1, 65535)
    place = f"{os.environ['MASTER_ADDR']}, port {port} (MASTER_ADDR, MASTER_PORT)"
    limit = _meet_seconds()
    try:
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            store = _fresh_store(rank, count, port, limit)
        else:
            store = dist.TCPStore(
                os.environ["MASTER_ADDR"], port, count, is_master=rank == 0, timeout=limit, wait_for_workers=False
            )
    except (RuntimeError, ValueError, OSError) as e:
        taken = "address already in use" in str(e).lower()
        why = "another program uses it" if taken else f"nobody answered within {limit.seconds} s"
        raise UserError(f"process {rank} of {count} can't meet the others at {place}: {why}") from e
    try:
        store.set(f"here/{rank}", "")
        store.wait([f"here/{i}" for i in range(count)], limit)
    except RuntimeError as e:
        raise UserError(
            f"process {rank} of {count} waited {limit.seconds} s in vain for {_absent(store, count)}"
        ) from e
    return store


def _absent(store: dist.Store, count: int) -> str:
    try:
        missing = [i for i in range(count) if not store.check([f"here/{i}"])]
    except RuntimeError:  # the first process, which keeps the store, is gone
        missing = [0]
    return f"process {missing[0]}" + f" and {len(missing) - 1} more" * (len(missing) > 1) if missing else "the others"


def compare(store: dist.Store, command: Any, rank: int, count: int) -> None:
    """UserError, the same in every process, if one was started with another command than the first."""
    store.set(f"command/{rank}", json.dumps(_flat(command), sort_keys=True))
    texts = [store.get(f"command/{i}") for i in range(count)]
    store.set(f"compared/{rank}", "")
    if rank == 0:  # it keeps the store, which the others must have read before it ends
        store.wait([f"compared/{i}" for i in range(count)])
    first = texts[0]
    for other, text in enumerate(texts):
        if text != first:
            one, two = json.loads(first), json.loads(text)
            name = next(key for key in sorted(one.keys() | two.keys()) if one.get(key) != two.get(key))
            raise UserError(
                f"process {other} was started with another command than process 0: "
                f"{name} is {two.get(name)!r:.60} there and {one.get(name)!r:.60} here; give all the same"
            )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix.removesuffix("."): value}
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= _flat(item, f"{prefix}{key}.")
    return found


def _fresh_store(rank: int, count: int, port: int, limit: timedelta) -> dist.Store:
    """A store of this start of the processes alone, kept by the first of them and announced in torchrun's.

    torchrun's own store outlives a restart, and the addresses of dead processes in it would be taken for the new
    ones'. An announcement is good if somebody answers there.
    """
    host = os.environ["MASTER_ADDR"]
    announced = dist.TCPStore(host, port, is_master=False, timeout=limit)
    if rank == 0:
        own = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=limit)
        announced.set(_STORE_KEY, str(own.port))
        return own
    deadline = time.monotonic() + limit.seconds
    while True:
        own_port = int(announced.get(_STORE_KEY))
        try:
            with socket.create_connection((host, own_port), timeout=5):
                pass
            return dist.TCPStore(host, own_port, is_master=False, timeout=limit)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
