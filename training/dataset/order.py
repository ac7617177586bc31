"""Training order as a pure function of the position, so resuming and any number of ranks see the same data.

The generators are numpy's legacy RandomState, whose streams are frozen for good (NEP 19); those of numpy's newer
Generator may change with its version, and a resumed run with them.
"""

import functools
from collections.abc import Callable

import numpy as np


def sample_order(seed: int, start: int, count: int, size: int) -> np.ndarray:
    """Indices of the samples at positions start..start+count of training on `size` samples, int64 [count].

    Epoch e covers positions e*size..(e+1)*size in an order of its own that depends on (seed, e) only; every sample
    occurs once an epoch. Ranks share the work by taking different positions.
    """
    return _gather(start, count, size, functools.partial(_epoch_piece, seed, size))


def stream_order(seed: int, start: int, count: int, size: int, block: int = 256, buffer_blocks: int = 64) -> np.ndarray:
    """The same contract as `sample_order`, for data that doesn't fit in memory and should be read nearly in sequence.

    The samples are cut into runs of `block` neighbours. An epoch visits the runs in random order, fills a buffer with
    `buffer_blocks` runs, empties it in random order, and fills it again. So block * buffer_blocks positions touch
    only buffer_blocks stretches of the files, while neighbours in a shard are still far apart in training.
    """
    if block < 1 or buffer_blocks < 1:
        raise ValueError("block and buffer_blocks must be at least 1")
    return _gather(start, count, size, functools.partial(_stream_piece, seed, size, block, buffer_blocks))


def _gather(start: int, count: int, size: int, piece: Callable[[int, int], np.ndarray]) -> np.ndarray:
    """Concatenates what `piece(epoch, position in the epoch) -> indices from there on` gives."""
    if size < 1:
        raise ValueError("there are no samples to order")
    out = np.empty(count, np.int64)
    done = 0
    while done < count:
        epoch, position = divmod(start + done, size)
        found = piece(epoch, position)[: count - done]
        out[done : done + len(found)] = found
        done += len(found)
    return out


def _random(*key: int) -> np.random.RandomState:
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(key)))


@functools.lru_cache(maxsize=2)
def _epoch(seed: int, epoch: int, size: int) -> np.ndarray:
    return _random(seed, epoch).permutation(size)


def _epoch_piece(seed: int, size: int, epoch: int, position: int) -> np.ndarray:
    return _epoch(seed, epoch, size)[position:]


@functools.lru_cache(maxsize=2)
def _block_starts(seed: int, epoch: int, size: int, block: int, buffer_blocks: int) -> tuple[np.ndarray, np.ndarray]:
    """-> first samples of the runs in this epoch's order, and the position at which each buffer starts."""
    starts = _random(seed, epoch, 1).permutation(np.arange(0, size, block))
    lengths = np.minimum(size - starts, block)
    ends = np.cumsum(lengths)
    return starts, np.concatenate([[0], ends[buffer_blocks - 1 :: buffer_blocks]])


@functools.lru_cache(maxsize=2)
def _buffer(seed: int, epoch: int, size: int, block: int, buffer_blocks: int, number: int) -> np.ndarray:
    starts, _ = _block_starts(seed, epoch, size, block, buffer_blocks)
    chosen = starts[number * buffer_blocks : (number + 1) * buffer_blocks]
    content = np.concatenate([np.arange(s, min(s + block, size)) for s in chosen])
    return _random(seed, epoch, 2, number).permutation(content)


def _stream_piece(seed: int, size: int, block: int, buffer_blocks: int, epoch: int, position: int) -> np.ndarray:
    _, buffer_starts = _block_starts(seed, epoch, size, block, buffer_blocks)
    number = int(np.searchsorted(buffer_starts, position, side="right")) - 1
    return _buffer(seed, epoch, size, block, buffer_blocks, number)[position - int(buffer_starts[number]) :]
