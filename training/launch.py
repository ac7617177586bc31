"""Starts or continues a run, in as many processes as it asks for."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dnnlib.cli import command_line, say
from dnnlib.config import from_dict, to_dict
from dnnlib.errors import UserError
from dnnlib.plugins import import_file
from torch_utils import distributed
from training.config import TrainingConfig
from training.dataset import ImageDataset, open_dataset
from training.run.checkpoint import (
    check_fits,
    find_unfinished,
    is_finished,
    load_state,
    settings_to_continue,
    start_from,
)
from training.run.recorder import FolderRecorder, Recorder
from training.run.run_folder import RunFolder
from training.run.starts import note_start
from training.session import Session
from training.step.automatic import automatic_precision
from training.step.interrupt import StopRequest
from training.training_loop import Trainer


@dataclass(frozen=True)
class Place:
    """Where a run is written and whether it goes on from something."""

    outdir: str  # new run folders are made here
    description: str  # of a new folder's name
    folder: str | None = None  # continue this run
    is_new: bool = False  # start afresh even if an unfinished run could be continued


def launch(cfg: TrainingConfig, place: Place, plugins: Sequence[str] = (), dataset: ImageDataset | None = None) -> None:
    """Trains with `cfg.gpus` processes. UserError for what the user can mend.

    `dataset`: that of `cfg`, if it is open already; other processes get it with its headers checked.
    """
    asked = {"config": to_dict(cfg), "resume": place.folder, "new": place.is_new, "import": list(plugins)}
    distributed.run(_process, (tuple(plugins), to_dict(cfg), place, dataset), cfg.gpus, asked)


def _process(plugins: Sequence[str], config: dict[str, Any], place: Place, dataset: ImageDataset | None) -> None:
    """One of the processes, which may be new: only the plug-ins make it know the networks of the config."""
    for file in plugins:
        import_file(file)
    cfg = from_dict(TrainingConfig, config)
    device = distributed.own_device()
    _set_backends(cfg)
    run: RunFolder | None = None
    try:
        with StopRequest() as stop:
            run, state, cfg = _open_run(cfg, place, device)
            data = cfg.data
            dataset = dataset or distributed.agreed(
                lambda: open_dataset(data.path, data.use_labels, data.max_size, data.mirror)
            )
            _train(cfg, dataset, run, state, device, stop)
    finally:
        if run is not None:
            run.close()


def _open_run(
    cfg: TrainingConfig, place: Place, device: torch.device
) -> tuple[RunFolder | None, dict[str, Any] | None, TrainingConfig]:
    """The run folder (in the first process only), the state to go on from, or None for a fresh start, and the config.
    Nothing in an existing folder is changed yet."""
    opened: list[RunFolder] = []

    def open_or_create() -> tuple[dict[str, Any] | None, dict[str, Any]]:
        found = _folder_to_continue(cfg, place)
        if found is None:
            settled = _settled(cfg, device)
            opened.append(RunFolder.create(place.outdir, place.description, settled))
            return None, to_dict(settled)
        settings = cfg if place.folder is not None else settings_to_continue(found, cfg)
        settings = _settled(settings, device)  # a folder may be continued with --precision=auto
        state = load_state(found)
        check_fits(state, settings, found)
        opened.append(RunFolder(found))
        return state, to_dict(settings)

    try:
        state, config = distributed.from_rank_0(open_or_create)
    except BaseException:
        for run in opened:
            run.close()
        raise
    return (opened[0] if opened else None), state, from_dict(TrainingConfig, config)


def _settled(cfg: TrainingConfig, device: torch.device) -> TrainingConfig:
    """With a precision for good: the run's options name it, so that the run goes on in it on any machine."""
    if cfg.precision != "auto":
        return cfg
    precision, why = automatic_precision(cfg, device)
    say(f"precision  {precision}: {why}")
    return replace(cfg, precision=precision)  # type: ignore[arg-type]


def _folder_to_continue(cfg: TrainingConfig, place: Place) -> Path | None:
    if place.folder is not None:
        folder = Path(place.folder)
        state = load_state(folder, peek=True)
        if is_finished(folder, cfg):
            raise UserError(f"{folder} has reached kimg {state['nimg'] / 1000:.1f}; give a larger --kimg to go on")
        return folder
    return None if place.is_new else find_unfinished(place.outdir, cfg, say)


def _train(
    cfg: TrainingConfig,
    dataset: ImageDataset,
    run: RunFolder | None,
    state: dict[str, Any] | None,
    device: torch.device,
    stop: StopRequest,
) -> None:
    trainer = Trainer(cfg, dataset, device)
    recorder = FolderRecorder(run, trainer) if run is not None else Recorder()
    session = Session(trainer, recorder, dataset.unmirrored())
    where = run.path if run is not None else ""
    if state is not None:
        distributed.agreed(lambda: session.load_state(state))
        recorder.rewind(cfg, state)
        recorder.say(f"continuing {where} from kimg {trainer.nimg / 1000:.1f}; --new starts afresh")
    elif cfg.resume:
        recorder.say(_transfer(trainer, cfg.resume))
    if run is not None:
        note_start(run.path)
    recorder.say(f"training in {where}")
    with _out_of_memory_explained(cfg):
        stopped_by = session.run(stop)
    recorder.say(_last_words(where, stopped_by, trainer.nimg))


def _transfer(trainer: Trainer, source: str) -> str:
    modules = {"G": trainer.G, "D": trainer.D, "G_ema": trainer.G_ema}
    message = distributed.from_rank_0(lambda: start_from(source, modules))
    for module in modules.values():
        for tensor in module.state_dict().values():
            distributed.copy_from_rank_0(tensor)
    return message


@contextmanager
def _out_of_memory_explained(cfg: TrainingConfig) -> Iterator[None]:
    """A GPU that is too small is answered with the largest micro-batch of at most half the images."""
    try:
        yield
    except torch.OutOfMemoryError as e:
        own = cfg.batch // cfg.gpus
        fits = next((n for n in range(cfg.micro_batch // 2, 0, -1) if own % n == 0), None)
        smaller = f"try --batch-gpu={fits}, the same batch in smaller parts" if fits else "take smaller networks"
        raise UserError(
            f"the GPU's memory is too small for micro-batches of {cfg.micro_batch}: {smaller}; "
            "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True may also help where memory is fragmented"
        ) from e


def _last_words(folder: Path | str, stopped_by: str | None, nimg: int) -> str:
    if stopped_by is None:
        return f"done: {folder}"
    return (
        f"stopped by {stopped_by} at kimg {nimg / 1000:.1f}, everything is saved; to go on, give the same command "
        f"again, or: {command_line('train.py')} --resume={folder}"
    )


def _set_backends(cfg: TrainingConfig) -> None:
    if cfg.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts; without it cuBLAS refuses
    torch.use_deterministic_algorithms(cfg.deterministic)
    torch.backends.cudnn.benchmark = not (cfg.nobench or cfg.deterministic)
    torch.backends.cuda.matmul.allow_tf32 = cfg.allow_tf32
    torch.backends.cudnn.allow_tf32 = cfg.allow_tf32
