"""Real images for training: loaded when they are needed, or decoded ahead by worker processes."""

import multiprocessing
import signal
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from torch_utils import distributed
from training.config import TrainingConfig
from training.dataset import ImageDataset, MicroBatchStream, sample_order

Batch = tuple[torch.Tensor, torch.Tensor]  # images uint8 [N, C, H, W], labels float32 [N, label_dim]


class Feed:
    """Micro-batches of real images on `device`. What a position holds doesn't depend on processes or workers."""

    def __init__(self, cfg: TrainingConfig, dataset: ImageDataset, device: torch.device):
        self._cfg, self._dataset = cfg, dataset
        self._copies: Any = _SideStream(device) if device.type == "cuda" else _SameStream(device)
        self._pins = device.type == "cuda"
        self._stream: Iterator[Batch] | None = None
        self._next: Any = None  # the micro-batch that is on its way to the device
        self._held: dict[int, Batch] = {}
        self._step_start = -1

    def get(self, nimg: int, micro: int) -> Batch:
        """Micro-batch `micro` of the step that starts after `nimg` images. It is kept until the next step begins.

        With workers, a process asks for its micro-batches in order and for none twice before it has had all.
        """
        if nimg != self._step_start:
            self._held, self._step_start = {}, nimg
        if micro not in self._held:
            self._held[micro] = self._ahead(nimg) if self._cfg.workers else self._now(nimg, micro)
        return self._held[micro]

    def _now(self, nimg: int, micro: int) -> Batch:
        n = self._cfg.micro_batch
        batch = self._dataset.load(sample_order(self._cfg.seed, nimg + micro * n, n, len(self._dataset)))
        return self._copies.arrived(self._copies.start(batch))

    def _ahead(self, nimg: int) -> Batch:
        """The micro-batch that the workers gave last time; the copy of the one after it starts while it is used."""
        if self._stream is None:
            self._stream = iter(self._loader(nimg))
            self._next = self._copies.start(next(self._stream))
        batch = self._copies.arrived(self._next)
        self._next = self._copies.start(next(self._stream))
        return batch

    def _loader(self, nimg: int) -> DataLoader:
        stream = MicroBatchStream(
            self._dataset,
            self._cfg.micro_batch,
            self._cfg.seed,
            start=nimg,
            rank=distributed.rank(),
            num_ranks=distributed.world_size(),
        )
        forks = "fork" in multiprocessing.get_all_start_methods()  # forked workers share the cache of decoded images
        return DataLoader(
            stream,
            batch_size=None,
            num_workers=self._cfg.workers,
            pin_memory=self._pins,
            generator=torch.Generator(),  # its own: the default one belongs to the micro-batch in progress
            worker_init_fn=_reset_signals,
            multiprocessing_context="fork" if forks else None,
        )


def _reset_signals(worker: int) -> None:
    # A forked worker inherits the trainer's handlers, but only the trainer decides when to stop.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _SameStream:
    """Copies that have arrived when they are started: a CPU's."""

    def __init__(self, device: torch.device):
        self._device = device

    def start(self, batch: Batch) -> Batch:
        return batch[0].to(self._device), batch[1].to(self._device)

    def arrived(self, started: Batch) -> Batch:
        return started


class _SideStream:
    """Copies to a GPU on a stream of their own, out of pinned memory: neither the host nor the training waits for them
    before it uses them."""

    def __init__(self, device: torch.device):
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def start(self, batch: Batch) -> tuple[Batch, torch.cuda.Event]:
        images, labels = (t if t.is_pinned() else t.pin_memory() for t in batch)
        with torch.cuda.stream(self._stream):
            copies = images.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True)
            return copies, self._stream.record_event()

    def arrived(self, started: tuple[Batch, torch.cuda.Event]) -> Batch:
        batch, event = started
        training = torch.cuda.current_stream(self._device)
        training.wait_event(event)
        for tensor in batch:
            tensor.record_stream(training)  # its memory belongs to the other stream, which must not reuse it too early
        return batch
