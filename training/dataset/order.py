"""Training order as a pure function of the position, so resuming and any number of ranks see the same data.

The generator is numpy's legacy RandomState, whose streams are frozen for good (NEP 19); those of numpy's newer
Generator may change with its version, and a resumed run with them.
"""

import functools

import numpy as np


def sample_order(seed: int, start: int, count: int, size: int) -> np.ndarray:
    """Indices of the samples at positions start..start+count of training on `size` samples, int64 [count].

    Epoch e covers positions e*size..(e+1)*size in an order of its own that depends on (seed, e) only; every sample
    occurs once an epoch. Ranks share the work by taking different positions.
    """
    if size < 1:
        raise ValueError("there are no samples to order")
    out = np.empty(count, np.int64)
    done = 0
    while done < count:
        epoch, position = divmod(start + done, size)
        found = _epoch(seed, epoch, size)[position : position + count - done]
        out[done : done + len(found)] = found
        done += len(found)
    return out


@functools.lru_cache(maxsize=2)
def _epoch(seed: int, epoch: int, size: int) -> np.ndarray:
    generator = np.random.RandomState(np.random.MT19937(np.random.SeedSequence((seed, epoch))))
    return generator.permutation(size)
