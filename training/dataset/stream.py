"""Micro-batches as an endless stream for `torch.utils.data.DataLoader`, so that processes decode ahead of training."""

from collections.abc import Iterator

import torch
from torch.utils.data import IterableDataset, get_worker_info

from training.dataset.image_dataset import ImageDataset
from training.dataset.order import sample_order


class MicroBatchStream(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """The micro-batches that one rank trains on, as `ImageDataset.load` gives them.

    Micro-batch m covers positions start + m*size .. start + (m+1)*size of the training order; rank r takes
    m = r, r + num_ranks, ... So ranks don't overlap, together they see what one rank alone would, and to resume is
    to say another `start`. In a DataLoader (with batch_size=None) its workers share the rank's micro-batches the
    same way, and the DataLoader yields them in the order of one process.

    Args:
        dataset: from `open_dataset`.
        size: images in a micro-batch.
        seed: of the order.
        start: position to begin at: images that all ranks together have seen.
        rank, num_ranks: this process and how many there are.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        size: int,
        seed: int,
        start: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
    ):
        super().__init__()
        if not 0 <= rank < num_ranks:
            raise ValueError(f"rank {rank} is not one of {num_ranks}")
        self._dataset = dataset
        self._size = size
        self._seed = seed
        self._start = start
        self._rank = rank
        self._num_ranks = num_ranks

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        worker = get_worker_info()
        first, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        number = self._rank + first * self._num_ranks
        while True:
            position = self._start + number * self._size
            yield self._dataset.load(sample_order(self._seed, position, self._size, len(self._dataset)))
            number += workers * self._num_ranks
