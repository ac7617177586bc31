"""The training order: each sample once an epoch, a function of the position alone, split without overlap."""

import numpy as np
import pytest
import torch
from support.dataset_samples import dataset_zip, pictures
from torch.utils.data import DataLoader

from training.dataset import MicroBatchStream, open_dataset, sample_order

FROZEN_SAMPLE = [6, 1, 0, 5, 3, 8, 7, 9, 2, 4]


@pytest.mark.parametrize("size", [1, 7, 48, 50])
def test_every_epoch_has_each_sample_once(size):
    for epoch in range(3):
        assert sorted(sample_order(3, epoch * size, size, size)) == list(range(size))


def test_any_piece_equals_the_same_piece_of_the_whole():
    whole = sample_order(5, 0, 200, 50)
    random = np.random.RandomState(0)
    for _ in range(30):
        start, count = random.randint(0, 150), random.randint(0, 50)
        np.testing.assert_array_equal(sample_order(5, start, count, 50), whole[start : start + count])


def test_epochs_and_seeds_differ():
    first = sample_order(0, 0, 50, 50)
    assert (first != sample_order(0, 50, 50, 50)).any()
    assert (first != sample_order(1, 0, 50, 50)).any()


def test_the_order_is_frozen():
    # Resuming an old run depends on these never changing.
    assert sample_order(0, 0, 10, 10).tolist() == FROZEN_SAMPLE


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_together_see_what_one_sees(tmp_path, ranks):
    dataset = open_dataset(dataset_zip(tmp_path / "a.zip", pictures(12, 8, 8), list(range(12))), use_labels=True)

    def take(rank, ranks, count):
        stream = iter(MicroBatchStream(dataset, 2, seed=1, start=4, rank=rank, num_ranks=ranks))
        return [next(stream)[1].argmax(1).tolist() for _ in range(count)]

    alone = take(0, 1, 12)
    parts = [take(rank, ranks, 12 // ranks) for rank in range(ranks)]
    assert [parts[m % ranks][m // ranks] for m in range(12)] == alone
    assert sorted(sum(alone[4:10], [])) == list(range(12)), "positions 12..24 are one whole epoch"


def test_loader_processes_give_the_same_stream(tmp_path):
    images = pictures(12, 8, 8)
    dataset = open_dataset(dataset_zip(tmp_path / "a.zip", images))
    stream = MicroBatchStream(dataset, 3, seed=1, rank=1, num_ranks=2)
    plain = iter(stream)
    loaded = iter(DataLoader(stream, batch_size=None, num_workers=2))
    for _ in range(5):
        for ours, theirs in zip(next(plain), next(loaded)):
            assert torch.equal(ours, theirs)


def test_wrong_ranks_are_refused():
    with pytest.raises(ValueError, match="rank 2"):
        MicroBatchStream(None, 1, 0, rank=2, num_ranks=2)
    with pytest.raises(ValueError, match="no samples"):
        sample_order(0, 0, 1, 0)
