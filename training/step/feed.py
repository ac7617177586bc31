"""Real images for training: loaded when they are needed, or decoded ahead by worker processes."""

import multiprocessing
import signal
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from torch_utils import distributed
from training.config import TrainingConfig
from training.dataset import ImageDataset, MicroBatchStream, sample_order

Batch = tuple[torch.Tensor, torch.Tensor]  # images uint8 [N, C, H, W], labels float32 [N, label_dim]


class Feed:
    """Micro-batches of real images on `device`. What a position holds doesn't depend on processes or workers."""

    def __init__(self, cfg: TrainingConfig, dataset: ImageDataset, device: torch.device):
        self._cfg, self._dataset, self._device = cfg, dataset, device
        self._stream: Iterator[Batch] | None = None
        self._held: dict[int, Batch] = {}
        self._step_start = -1

    def get(self, nimg: int, micro: int) -> Batch:
        """Micro-batch `micro` of the step that starts after `nimg` images. It is kept until the next step begins.

        With workers, a process asks for its micro-batches in order and for none twice before it has had all.
        """
        if nimg != self._step_start:
            self._held, self._step_start = {}, nimg
        if micro not in self._held:
            images, labels = self._ahead(nimg) if self._cfg.workers else self._now(nimg, micro)
            self._held[micro] = images.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True)
        return self._held[micro]

    def _now(self, nimg: int, micro: int) -> Batch:
        n = self._cfg.micro_batch
        return self._dataset.load(sample_order(self._cfg.seed, nimg + micro * n, n, len(self._dataset)))

    def _ahead(self, nimg: int) -> Batch:
        if self._stream is None:
            self._stream = iter(self._loader(nimg))
        return next(self._stream)

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
            pin_memory=self._device.type == "cuda",
            generator=torch.Generator(),  # its own: the default one belongs to the micro-batch in progress
            worker_init_fn=_reset_signals,
            multiprocessing_context="fork" if forks else None,
        )


def _reset_signals(worker: int) -> None:
    # A forked worker inherits the trainer's handlers, but only the trainer decides when to stop.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
