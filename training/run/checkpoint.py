"""The state of a run on disk (training-state.pt), finding a run to continue, and networks to start from."""

import contextlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dnnlib.config import from_dict, to_dict
from dnnlib.errors import ConfigError, UserError
from dnnlib.files import PART, atomic_file, map_file, read_json, write_file
from metrics import larger_is_better
from metrics.result import read_results
from torch_utils.files.torch_files import read_zip
from training.config import TrainingConfig
from training.dataset.embedded import located
from training.networks.files import read
from training.networks.misfits import misfits
from training.networks.registry import build
from training.run.state_checks import check_like

STATE_FILE = "training-state.pt"
OPTIONS_FILE = "training_options.json"
FIRST_OPTIONS_FILE = "first_options.json"  # the options a run began with, where it was continued with others
STATE_VERSION = 1
_NVIDIA = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/transfer-learning-source-nets"
KNOWN_SOURCES = {
    "ffhq256": f"{_NVIDIA}/ffhq-res256-mirror-paper256-noaug.pkl",
    "ffhq512": f"{_NVIDIA}/ffhq-res512-mirror-stylegan2-noaug.pkl",
    "ffhq1024": f"{_NVIDIA}/ffhq-res1024-mirror-stylegan2-noaug.pkl",
    "celebahq256": f"{_NVIDIA}/celebahq-res256-mirror-paper256-kimg100000-ada-target0.5.pkl",
    "lsundog256": f"{_NVIDIA}/lsundog-res256-paper256-kimg100000-noaug.pkl",
}
_SHOWN = 6  # names that a message lists
_SNAPSHOT = re.compile(r"network-snapshot-\d+\.pkl")  # not what was measured beside them, such as reconstructions


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Writes `state` (plain data and tensors) as the folder's training state, atomically."""
    try:
        with atomic_file(folder / STATE_FILE) as file:
            torch.save(state | {"version": STATE_VERSION}, file)
    except RuntimeError as e:
        if "inline_container" not in str(e):
            raise
        # torch's writer noticed that a write failed before it reported why.
        raise UserError(f"cannot write {folder / STATE_FILE}: is the disk full? Free some, then go on") from e


def load_state(folder: Path, peek: bool = False) -> dict[str, Any]:
    """Reads a training state into CPU memory (with `peek` without its tensors); nothing in the file is executed.

    UserError if there is none, it is damaged, or its counters make no sense.
    """
    path = folder / STATE_FILE
    try:
        state = read_zip(map_file(path), str(path), with_tensors=not peek)
    except FileNotFoundError:
        raise UserError(
            f"{folder} has no {STATE_FILE} to continue from; --resume=SNAPSHOT.pkl starts from a network"
        ) from None
    if not isinstance(state, dict) or state.get("version") != STATE_VERSION:
        raise UserError(f"{path} is no training state of version {STATE_VERSION}")
    check_like({"nimg": state.get("nimg")}, {"nimg": 0}, str(path))
    return _state_of_now(state)


def _state_of_now(state: dict[str, Any]) -> dict[str, Any]:
    """States of version 0.1 kept what the only objective remembered among everything else."""
    if "pl_mean" not in state:
        return state
    return {k: v for k, v in state.items() if k != "pl_mean"} | {"objective": {"pl_mean": state["pl_mean"]}}


def read_config(folder: Path, options: str = OPTIONS_FILE) -> TrainingConfig:
    """The config of a run. UserError if the folder is none or the config is of another version."""
    try:
        return from_dict(TrainingConfig, config_of_now(read_json(folder / options)))
    except FileNotFoundError:
        raise UserError(f"{folder} is no run folder: it has no {options}") from None
    except ConfigError as e:
        raise ConfigError(f"{folder / options}: {e}") from e


def config_of_now(data: Any) -> Any:
    """The config of version 0.1, as a run folder may still hold it, in today's fields; today's stay as they are."""
    if not isinstance(data, dict) or not isinstance(data.get("loss"), dict) or "kind" in data["loss"]:
        return data
    data = data | {"loss": data["loss"] | {"kind": "logistic"}}
    for name in ("G_opt", "D_opt"):
        old = dict(data.get(name, {}))
        start, end = old.pop("decay_start_kimg", None), old.pop("decay_end_kimg", None)
        if start is not None and end is not None:
            old["lr"] = {"start": old["lr"], "end": 0.0, "kimg": end - start, "begin_kimg": start}
        data[name] = old
    return data


def write_config(folder: Path, cfg: TrainingConfig) -> None:
    """Writes training_options.json; what the run began with is kept beside it if it was something else."""
    path, first = folder / OPTIONS_FILE, folder / FIRST_OPTIONS_FILE
    with contextlib.suppress(UserError):  # a damaged one is not worth keeping
        if path.is_file() and not first.exists() and not _same_training(folder, cfg):
            write_file(first, path.read_bytes())
    write_file(path, (json.dumps(to_dict(cfg), indent=2) + "\n").encode())


def find_unfinished(outdir: str, cfg: TrainingConfig, say: Callable[[str], None] = lambda line: None) -> Path | None:
    """The newest run under `outdir` that trains exactly as `cfg` does, or did when it began, and is not at its end;
    None if there is none.

    A damaged folder is passed over; `say` gets a line about it.
    """
    root = Path(outdir)
    folders = sorted((p for p in root.iterdir() if run_number(p) is not None), reverse=True) if root.is_dir() else []
    for folder in folders:
        try:
            if not (folder / STATE_FILE).is_file():
                continue
            if _same_training(folder, cfg) and not is_finished(folder, cfg):
                return folder
            if _same_training(folder, cfg, FIRST_OPTIONS_FILE) and not is_finished(folder, read_config(folder)):
                return folder
        except UserError as e:
            say(f"passing over {folder}: {e}")
    return None


def settings_to_continue(folder: Path, cfg: TrainingConfig) -> TrainingConfig:
    """`cfg`, or the run's own settings where `cfg` is what it began with and it was continued with others since."""
    recorded = read_config(folder)
    changed = not _same_training(folder, cfg) and _same_training(folder, cfg, FIRST_OPTIONS_FILE)
    return replace(recorded, gpus=cfg.gpus) if changed else with_precision_of(recorded, cfg)


def with_precision_of(recorded: TrainingConfig, cfg: TrainingConfig) -> TrainingConfig:
    """`cfg`; where it leaves the precision open, what a run has begun with goes on."""
    return replace(cfg, precision=recorded.precision) if cfg.precision == "auto" else cfg


def newest_run(outdir: str) -> str:
    """The folder of the highest number under `outdir` that has a state to continue from. UserError if there is none."""
    root = Path(outdir)
    folders = [p for p in root.iterdir() if run_number(p) is not None] if root.is_dir() else []
    folders = [p for p in folders if (p / STATE_FILE).is_file()]
    if not folders:
        raise UserError(f"--resume=latest: {outdir} holds no run that could be continued; --outdir names another place")
    return str(max(folders, key=lambda p: (run_number(p), p.name)))


def run_number(path: Path) -> int | None:
    """3 for a folder `00003-...`, None for anything else."""
    match = re.match(r"(\d+)-", path.name)
    return int(match[1]) if match and path.is_dir() else None


def is_finished(folder: Path, cfg: TrainingConfig) -> bool:
    """Whether the state in `folder` has reached the end of `cfg`, and all its metrics are measured.

    Raises UserError if the state can't be read.
    """
    state = load_state(folder, peek=True)
    if state["nimg"] < cfg.total_kimg * 1000:
        return False
    return not unmeasured(folder, cfg.metrics, state.get("last_snapshot"))


def unmeasured(folder: Path, metrics: list[str], snapshot: str | None) -> list[str]:
    """The metrics that have no line about the snapshot yet."""
    if snapshot is None:
        return []
    return [name for name in metrics if measured(folder, name, snapshot) is None]


def measured(folder: Path, metric: str, snapshot: str) -> dict[str, float] | None:
    """What the run's file about the metric says of a snapshot."""
    lines = read_results(folder / f"metric-{metric}.jsonl")
    return next((line["results"] for line in lines if line.get("snapshot_pkl") == snapshot), None)


def _same_training(folder: Path, cfg: TrainingConfig, options: str = OPTIONS_FILE) -> bool:
    """False also for runs of other versions or with plug-ins that are not here, and where there is no such file.

    Raises UserError for damaged ones.
    """
    if not (folder / options).is_file():
        return False
    try:
        recorded = read_config(folder, options)
        return _identity(recorded) == _identity(with_precision_of(recorded, cfg))
    except ConfigError:
        return False


def _identity(cfg: TrainingConfig) -> dict[str, Any]:
    """What determines the training: not how many processes share the micro-batches, but how large those are. Runs of
    earlier versions have relative paths."""
    data = to_dict(cfg.data) | {"path": os.path.abspath(located(cfg.data.path))}
    resume = os.path.abspath(cfg.resume) if cfg.resume and os.path.isfile(cfg.resume) else cfg.resume
    same = to_dict(cfg) | {"gpus": None, "batch_gpu": cfg.micro_batch, "data": data, "resume": resume}
    return same | ({"half_resolutions": None} if cfg.precision == "float32" else {})


def check_fits(state: dict[str, Any], cfg: TrainingConfig, folder: Path) -> None:
    """UserError where the networks of `cfg` are others than those of the state in `folder`. Changes nothing."""
    with torch.device("meta"):
        modules = {"G": build(cfg.G), "D": build(cfg.D)}
    for name, module in modules.items():
        problems = misfits(module.state_dict(), state["modules"][name])
        if problems:
            raise UserError(f"{folder} can't go on with these settings, its {name} is another network: {problems}")


def start_from(source: str, modules: dict[str, nn.Module]) -> str:
    """Transfer learning: copies the tensors of network file `source` (path, URL or a known name) into modules named
    G, D and G_ema, where name and shape agree. Returns one line that says what was copied.

    Raises UserError if the file can't be read or nothing in it fits.
    """
    content = read(KNOWN_SOURCES.get(source, source))
    records = {name: record.tensors for name, record in content.networks.items() if record is not None}
    if "G" not in records and "G_ema" in records:  # files for sampling hold only the average
        records["G"] = records["G_ema"]
    copied, fresh = 0, []
    for name, module in modules.items():
        found = records.get(name, {})
        for key, tensor in module.state_dict().items():
            if key in found and found[key].shape == tensor.shape:
                tensor.copy_(found[key])
                copied += 1
            else:
                fresh.append(f"{name}.{key}")
    if not copied:
        raise UserError(f"--resume={source}: none of its tensors fits these networks; use the options it was made with")
    left = f"; these stay as initialised: {', '.join(fresh[:_SHOWN])}" if fresh else ""
    more = f" and {len(fresh) - _SHOWN} more" if len(fresh) > _SHOWN else ""
    return f"starting from {source}: {copied} of {copied + len(fresh)} tensors copied{left}{more}"


def thin_snapshots(folder: Path, keep: int) -> None:
    """Deletes network snapshots: the newest `keep` stay, and the best one by each metric."""
    snapshots = sorted(folder.glob("network-snapshot-*.pkl"))
    best = best_snapshots(folder)
    for path in snapshots[: max(len(snapshots) - keep, 0)]:
        if path.name not in best:
            try:
                path.unlink()
            except OSError as e:
                raise UserError(f"cannot remove {path}: {e.strerror}") from e


def best_snapshots(folder: Path) -> set[str]:
    """File names of the snapshots with the best value of each metric of the run."""
    best = set()
    for path in folder.glob("metric-*.jsonl"):
        choose = max if larger_is_better(path.stem.removeprefix("metric-")) else min
        values = [(next(iter(line["results"].values()), None), line["snapshot_pkl"]) for line in read_results(path)]
        found = [(v, n) for v, n in values if v is not None and n and _SNAPSHOT.fullmatch(n) and (folder / n).is_file()]
        if found:
            best.add(choose(found)[1])
    return best


def remove_leftovers(folder: Path) -> None:
    """Deletes the temporary files of writes that a crash cut off."""
    for path in folder.glob(f".*{PART}"):
        if path.is_symlink() or path.is_file():
            path.unlink()
