"""The training order: each sample once an epoch, a function of the position alone, split without overlap."""

import numpy as np
import pytest
import torch
from support.dataset_samples import dataset_zip, pictures
from torch.utils.data import DataLoader

from training.dataset import MicroBatchStream, open_dataset, sample_order, stream_order


def small_stream(seed, start, count, size):
    return stream_order(seed, start, count, size, block=4, buffer_blocks=3)


FROZEN_SAMPLE = [6, 1, 0, 5, 3, 8, 7, 9, 2, 4]
FROZEN_STREAM = [0, 3, 8, 14, 12, 15, 10, 1, 11, 9, 13, 2, 19, 16, 7, 4, 18, 17, 5, 6]
ORDERS = [sample_order, small_stream]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("size", [1, 7, 48, 50])
def test_every_epoch_has_each_sample_once(order, size):
    for epoch in range(3):
        assert sorted(order(3, epoch * size, size, size)) == list(range(size))


@pytest.mark.parametrize("order", ORDERS)
def test_any_piece_equals_the_same_piece_of_the_whole(order):
    whole = order(5, 0, 200, 50)
    random = np.random.RandomState(0)
    for _ in range(30):
        start, count = random.randint(0, 150), random.randint(0, 50)
        np.testing.assert_array_equal(order(5, start, count, 50), whole[start : start + count])


@pytest.mark.parametrize("order", ORDERS)
def test_epochs_and_seeds_differ(order):
    first = order(0, 0, 50, 50)
    assert (first != order(0, 50, 50, 50)).any()
    assert (first != order(1, 0, 50, 50)).any()


def test_the_order_is_frozen():
    # Resuming an old run depends on these never changing.
    assert sample_order(0, 0, 10, 10).tolist() == FROZEN_SAMPLE
    assert small_stream(0, 0, 20, 20).tolist() == FROZEN_STREAM


def test_streaming_touches_few_stretches_at_a_time():
    order = stream_order(0, 0, 10_000, 10_000, block=100, buffer_blocks=5)
    for start in range(0, 10_000, 500):
        assert len(np.unique(order[start : start + 500] // 100)) == 5
    inside = order[:500]
    assert (np.diff(inside) != 1).mean() > 0.95, "the buffer is shuffled, not only the blocks"


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_together_see_what_one_sees(tmp_path, order, ranks):
    dataset = open_dataset(dataset_zip(tmp_path / "a.zip", pictures(12, 8, 8), list(range(12))), use_labels=True)

    def take(rank, ranks, count):
        stream = iter(MicroBatchStream(dataset, 2, seed=1, start=4, rank=rank, num_ranks=ranks, order=order))
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
