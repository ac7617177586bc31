"""Starts the processes of a run: one here, several spawned on this machine, or what torchrun has started."""

import os
import socket
from collections.abc import Sequence

import torch
import torch.distributed as dist

from dnnlib.errors import UserError
from dnnlib.plugins import import_file
from torch_utils import distributed
from training.config import TrainingConfig
from training.dataset import open_dataset
from training.run_folder import RunFolder, run_description
from training.training_loop import Trainer


def process_count(asked: int | None) -> int:
    """Processes of the run: torchrun's, or as asked, or one per GPU, or one."""
    if under_torchrun():
        world = int(os.environ["WORLD_SIZE"])
        if asked not in (None, world):
            raise UserError(f"--gpus={asked}, but torchrun started {world} processes; leave --gpus out")
        return world
    available = torch.cuda.device_count()
    if asked is not None and available and asked > available:
        raise UserError(f"--gpus={asked}, but this machine has {available}")
    return asked or max(available, 1)


def under_torchrun() -> bool:
    """Whether torchrun (or a launcher with its environment variables) started this process."""
    return "WORLD_SIZE" in os.environ and "RANK" in os.environ and "MASTER_ADDR" in os.environ


def launch(cfg: TrainingConfig, outdir: str, dataset_name: str, plugins: Sequence[str] = ()) -> None:
    """Trains in a new run folder under `outdir`, with `cfg.gpus` processes."""
    description = run_description(dataset_name, cfg)
    if under_torchrun():
        _process(int(os.environ["RANK"]), cfg, outdir, description, plugins, "env://")
    elif cfg.gpus == 1:
        _train(cfg, outdir, description)
    else:
        address = f"tcp://127.0.0.1:{_free_port()}"
        torch.multiprocessing.spawn(  # type: ignore[attr-defined]
            _process, args=(cfg, outdir, description, plugins, address), nprocs=cfg.gpus
        )


def _process(
    rank: int, cfg: TrainingConfig, outdir: str, description: str, plugins: Sequence[str], address: str
) -> None:
    """One of several processes."""
    for file in plugins:
        import_file(file)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if not torch.cuda.is_available():
        torch.set_num_threads(max((os.cpu_count() or 1) // _local_count(cfg), 1))
    dist.init_process_group(backend, init_method=address, rank=rank, world_size=cfg.gpus)
    try:
        _train(cfg, outdir, description)
    finally:
        dist.destroy_process_group()


def _train(cfg: TrainingConfig, outdir: str, description: str) -> None:
    device = _device(cfg)
    dataset = open_dataset(cfg.data.path, cfg.data.use_labels, cfg.data.max_size, cfg.data.mirror)
    run = RunFolder.create(outdir, description, cfg) if distributed.rank() == 0 else None
    try:
        trainer = Trainer(cfg, dataset, run, device)
        if run is not None:
            run.say(f"training in {run.path}: {len(dataset)} images of {_size(dataset.image_shape)}")
        trainer.train()
        if run is not None:
            run.say(f"done: {run.path}")
    finally:
        if run is not None:
            run.close()


def _device(cfg: TrainingConfig) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    index = int(os.environ.get("LOCAL_RANK", distributed.rank()))
    torch.cuda.set_device(index)
    torch.backends.cudnn.benchmark = not cfg.nobench
    torch.backends.cuda.matmul.allow_tf32 = cfg.allow_tf32
    torch.backends.cudnn.allow_tf32 = cfg.allow_tf32
    return torch.device("cuda", index)


def _local_count(cfg: TrainingConfig) -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", cfg.gpus))


def _size(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    return f"{width}x{height}, {channels} channel{'s' * (channels > 1)}"


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
