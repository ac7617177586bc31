"""The state of a run on disk (training-state.pt), finding a run to continue, and networks to start from."""

import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dnnlib.config import from_dict, to_dict
from dnnlib.errors import ConfigError, UserError
from metrics import larger_is_better
from torch_utils.files.persistence import atomic_file
from training.config import TrainingConfig
from training.networks.files import read

STATE_FILE = "training-state.pt"
OPTIONS_FILE = "training_options.json"
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
    with atomic_file(folder / STATE_FILE) as file:
        torch.save(state | {"version": STATE_VERSION}, file)


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
    return _state_of_now(state)


def _state_of_now(state: dict[str, Any]) -> dict[str, Any]:
    """States of version 0.1 kept what the only objective remembered among everything else."""
    if "pl_mean" not in state:
        return state
    return {k: v for k, v in state.items() if k != "pl_mean"} | {"objective": {"pl_mean": state["pl_mean"]}}


def read_config(folder: Path) -> TrainingConfig:
    """The config of a run. UserError if the folder is none or the config is of another version."""
    try:
        return from_dict(TrainingConfig, config_of_now(json.loads((folder / OPTIONS_FILE).read_text())))
    except FileNotFoundError:
        raise UserError(f"{folder} is no run folder: it has no {OPTIONS_FILE}") from None
    except (json.JSONDecodeError, ConfigError) as e:
        raise UserError(f"{folder / OPTIONS_FILE}: {e}") from e


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
    """Writes training_options.json."""
    with atomic_file(folder / OPTIONS_FILE) as file:
        file.write((json.dumps(to_dict(cfg), indent=2) + "\n").encode())


def find_unfinished(outdir: str, cfg: TrainingConfig) -> Path | None:
    """The newest run under `outdir` that trains exactly as `cfg` does and is not at its end; None if there is none."""
    root = Path(outdir)
    folders = sorted((p for p in root.iterdir() if run_number(p) is not None), reverse=True) if root.is_dir() else []
    for folder in folders:
        if (folder / STATE_FILE).is_file() and _same_training(folder, cfg) and not is_finished(folder, cfg):
            return folder
    return None


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


def _same_training(folder: Path, cfg: TrainingConfig) -> bool:
    try:
        other = read_config(folder)
    except UserError:
        return False
    return _identity(other) == _identity(cfg)


def _identity(cfg: TrainingConfig) -> dict[str, Any]:
    """What determines the training: not how many processes share the micro-batches, but how large those are."""
    return to_dict(cfg) | {"gpus": None, "batch_gpu": cfg.micro_batch}


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
        choose = max if larger_is_better(path.stem.removeprefix("metric-")) else min
        values = [(next(iter(line["results"].values()), None), line["snapshot_pkl"]) for line in read_jsonl(path)]
        found = [(v, name) for v, name in values if v is not None and name and (folder / name).is_file()]
        if found:
            best.add(choose(found)[1])
    return best


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
