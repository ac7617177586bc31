"""The feed of real images, and the streams of a GPU by a fake."""

import contextlib

import pytest
import torch
from support.tiny_runs import recipe

from training.dataset import open_dataset
from training.step import feed as feed_module
from training.step.feed import Feed, _SideStream


class Journal(list):
    """What happened, in order."""


class FakeStream:
    def __init__(self, name, journal):
        self.name, self.journal = name, journal

    def record_event(self):
        self.journal.append(f"{self.name} records")
        return "event"

    def wait_event(self, event):
        self.journal.append(f"{self.name} waits for the {event}")


@pytest.fixture
def journal(monkeypatch):
    """torch.cuda's streams and the methods of tensors that concern them, written down instead of done."""
    events = Journal()
    current = ["training"]

    @contextlib.contextmanager
    def stream(side):
        current.append(side.name)
        yield
        current.pop()

    def to(tensor, device, non_blocking=False):
        events.append(f"{current[-1]} copies {'without' if non_blocking else 'with'} waiting")
        return tensor.clone()

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: FakeStream("side", events))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: FakeStream(current[-1], events))
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: events.append("the host waits"))
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda t: False)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: events.append("pins") or t)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda t, s: events.append(f"memory belongs to {s.name} too"))
    monkeypatch.setattr(torch.Tensor, "to", to)
    return events


def test_a_copy_waits_for_nobody(journal):
    copies, batch = _SideStream(torch.device("cpu")), (torch.ones(2, 3), torch.zeros(2, 1))
    started = copies.start(batch)
    assert journal == ["pins", "pins", *["side copies without waiting"] * 2, "side records"]
    journal.clear()
    assert torch.equal(copies.arrived(started)[0], batch[0])
    assert journal == ["training waits for the event", *["memory belongs to training too"] * 2]


class Recorder:
    """Copies that tell what was started and what was taken."""

    def __init__(self):
        self.journal = []

    def start(self, batch):
        self.journal.append(f"start {sum(line.startswith('start') for line in self.journal)}")
        return batch

    def arrived(self, batch):
        self.journal.append("take")
        return batch


@pytest.mark.parametrize("workers", [0, 1])
def test_the_next_copy_starts_while_one_is_used(workers, monkeypatch):
    cfg = recipe("noaug")
    cfg.workers = workers
    dataset = open_dataset(cfg.data.path, cfg.data.use_labels, cfg.data.max_size, cfg.data.mirror)
    feed = Feed(cfg, dataset, torch.device("cpu"))
    feed._copies = Recorder()
    plain = Feed(recipe("noaug"), dataset, torch.device("cpu"))
    count = cfg.batch // cfg.micro_batch
    for nimg in (0, cfg.batch):
        for micro in range(count):
            images, labels = feed.get(nimg, micro)
            assert torch.equal(images, plain.get(nimg, micro)[0])
            assert torch.equal(labels, plain.get(nimg, micro)[1])
    journal = feed._copies.journal
    if workers:
        assert journal[:4] == ["start 0", "take", "start 1", "take"]
        assert len(journal) == 4 * count + 1
    else:
        assert journal == [line for i in range(2 * count) for line in (f"start {i}", "take")]


def test_a_gpu_gets_the_side_stream(journal):
    cfg = recipe("noaug")
    dataset = open_dataset(cfg.data.path, cfg.data.use_labels, cfg.data.max_size, cfg.data.mirror)
    assert isinstance(Feed(cfg, dataset, torch.device("cuda"))._copies, feed_module._SideStream)
