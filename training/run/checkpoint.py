"""The state of a run on disk (training-state.pt), finding a run to continue, and networks to start from."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dnnlib.config import from_dict, to_dict
from dnnlib.errors import ConfigError, UserError
from torch_utils.files.persistence import atomic_file
from training.config import TrainingConfig
from training.dataset.embedded import located
from training.networks.files import read
from training.networks.misfits import misfits
from training.networks.registry import build

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
    """Reads a training state into CPU memory (with `peek` the tensors stay on disk); nothing in the file is executed.

    UserError if there is none or it is damaged.
    """
    path = folder / STATE_FILE
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=peek)
    except FileNotFoundError:
        raise UserError(
            f"{folder} has no {STATE_FILE} to continue from; --resume=SNAPSHOT.pkl starts from a network"
        ) from None
    except Exception as e:  # torch.load raises many kinds for damaged files
        raise UserError(f"cannot read {path}: {' '.join(str(e).split())[:200]}") from e
    if not isinstance(state, dict) or state.get("version") != STATE_VERSION:
        raise UserError(f"{path} is no training state of version {STATE_VERSION}")
    return state


def read_config(folder: Path, options: str = OPTIONS_FILE) -> TrainingConfig:
    """The config of a run. UserError if the folder is none or the config is of another version."""
    try:
        return from_dict(TrainingConfig, json.loads((folder / options).read_text()))
    except FileNotFoundError:
        raise UserError(f"{folder} is no run folder: it has no {options}") from None
    except (json.JSONDecodeError, ConfigError) as e:
        raise UserError(f"{folder / options}: {e}") from e


def write_config(folder: Path, cfg: TrainingConfig) -> None:
    """Writes training_options.json; what the run began with is kept beside it if it was something else."""
    path, first = folder / OPTIONS_FILE, folder / FIRST_OPTIONS_FILE
    if path.is_file() and not first.exists() and not _same_training(folder, cfg):
        with atomic_file(first) as file:
            file.write(path.read_bytes())
    with atomic_file(folder / OPTIONS_FILE) as file:
        file.write((json.dumps(to_dict(cfg), indent=2) + "\n").encode())


def find_unfinished(outdir: str, cfg: TrainingConfig) -> Path | None:
    """The newest run under `outdir` that trains exactly as `cfg` does, or did when it began, and is not at its end;
    None if there is none."""
    root = Path(outdir)
    folders = sorted((p for p in root.iterdir() if run_number(p) is not None), reverse=True) if root.is_dir() else []
    for folder in folders:
        if not (folder / STATE_FILE).is_file():
            continue
        if _same_training(folder, cfg) and not is_finished(folder, cfg):
            return folder
        if _same_training(folder, cfg, FIRST_OPTIONS_FILE) and not is_finished(folder, read_config(folder)):
            return folder
    return None


def settings_to_continue(folder: Path, cfg: TrainingConfig) -> TrainingConfig:
    """`cfg`, or the run's own settings where `cfg` is what it began with and it was continued with others since."""
    changed = not _same_training(folder, cfg) and _same_training(folder, cfg, FIRST_OPTIONS_FILE)
    return replace(read_config(folder), gpus=cfg.gpus) if changed else cfg


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
    """Whether the state in `folder` has reached the end of `cfg`. A state that can't be read is not worth going on."""
    try:
        return load_state(folder, peek=True)["nimg"] >= cfg.total_kimg * 1000
    except UserError:
        return True


def _same_training(folder: Path, cfg: TrainingConfig, options: str = OPTIONS_FILE) -> bool:
    try:
        other = read_config(folder, options)
    except UserError:
        return False
    return _identity(other) == _identity(cfg)


def _identity(cfg: TrainingConfig) -> dict[str, Any]:
    """What determines the training: not how many processes share the micro-batches, but how large those are. Runs of
    earlier versions have relative paths."""
    data = to_dict(cfg.data) | {"path": os.path.abspath(located(cfg.data.path))}
    resume = os.path.abspath(cfg.resume) if cfg.resume and os.path.isfile(cfg.resume) else cfg.resume
    return to_dict(cfg) | {"gpus": None, "batch_gpu": cfg.micro_batch, "data": data, "resume": resume}


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
            path.unlink()


def best_snapshots(folder: Path) -> set[str]:
    """File names of the snapshots with the best value of each metric of the run."""
    best = set()
    for path in folder.glob("metric-*.jsonl"):
        values = [(v, line["snapshot_pkl"]) for line in read_jsonl(path) if (v := _score(line)) is not None]
        values = [(v, name) for v, name in values if name and (folder / name).is_file()]
        if values:
            best.add(min(values)[1])
    return best


def _score(line: dict[str, Any]) -> float | None:
    """The first value of a line of metric-NAME.jsonl, so turned that smaller is better."""
    name, value = next(iter(line["results"].items()), ("", None))
    larger_is_better = name.startswith(("is", "pr", "den", "cov"))
    return None if value is None else -value if larger_is_better else value


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Lines of a .jsonl file; a last line that a crash cut off is left out. [] if there is no file."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def remove_leftovers(folder: Path) -> None:
    """Deletes the temporary files of writes that a crash cut off."""
    for path in folder.glob(".*.part"):
        os.unlink(path)
