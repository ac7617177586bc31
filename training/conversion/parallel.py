"""Mapping a function over a stream of items with several processes, in order and in constant memory."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import TypeVar

from dnnlib.errors import UserError
from dnnlib.plugins import import_file, imported_files

T = TypeVar("T")
R = TypeVar("R")
_CHUNK_ITEMS = 32
_CHUNK_BYTES = 4 << 20
_CHUNKS_PER_WORKER = 3  # one being worked on, two waiting, so that nobody waits for the reader


def usable_cpus() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], workers: int, cost: Callable[[T], int]
) -> Generator[R, None, None]:
    """Yields function(item) in the order of `items`; with workers = 1 in this process, else in so many others.

    Args:
        function: picklable, like the items and results.
        cost: bytes that sending an item moves; items are sent in chunks of bounded count and bytes.

    Only a few chunks are ever under way, so memory doesn't depend on the number of items. Raises UserError if a
    process dies.
    """
    if workers == 1:
        yield from map(function, items)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker, (imported_files(),))
    pending: deque[Future[list[R]]] = deque()
    try:
        for chunk in _chunks(items, cost):
            with _interrupts_wait():  # processes that are started now inherit it: Ctrl-C is for this one alone
                pending.append(pool.submit(_map_chunk, function, chunk))
            if len(pending) > workers * _CHUNKS_PER_WORKER:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    except BrokenProcessPool as e:
        raise UserError("a worker process died, perhaps for want of memory; try fewer --num-workers") from e
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _interrupts_wait() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(plugins: tuple[str, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    for file in plugins:  # pictures may be of a plug-in's class
        import_file(file)


def _end_with_parent() -> None:
    """Workers wait for work through a pipe that they hold open themselves, so they wouldn't notice a killed parent."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # this runs in workers only
    threading.Thread(target=_wait_and_exit, args=(parent,), daemon=True).start()


def _wait_and_exit(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _map_chunk(function: Callable[[T], R], chunk: list[T]) -> list[R]:
    return [function(item) for item in chunk]


def _chunks(items: Iterable[T], cost: Callable[[T], int]) -> Iterator[list[T]]:
    chunk: list[T] = []
    total = 0
    for item in items:
        chunk.append(item)
        total += cost(item)
        if len(chunk) == _CHUNK_ITEMS or total >= _CHUNK_BYTES:
            yield chunk
            chunk, total = [], 0
    if chunk:
        yield chunk
