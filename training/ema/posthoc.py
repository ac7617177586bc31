"""Stored averages in a run folder, and what is computed from them afterwards."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dnnlib.errors import UserError
from torch_utils.files.persistence import NetworkFile, NetworkRecord
from training.ema.power import LONGEST, SHORTEST, Profile, coefficients
from training.networks import files

_NAME = re.compile(r"ema-(0\.\d+)-(\d{9,15})\.safetensors")


@dataclass(frozen=True)
class Reconstruction:
    """An average that was computed afterwards."""

    content: NetworkFile  # G_ema only
    count: int  # averages that it was computed from
    misfit: float  # of the profile, as a share of its norm


def average_name(length: float, nimg: int) -> str:
    """The file of the average of a length after so many images. It is an ordinary network file of float32: computing
    other lengths multiplies rounding errors (by 20 for sigma_rel 0.02), which float16 would not bear."""
    return f"ema-{length}-{nimg:09d}.safetensors"


def stored_averages(folder: Path) -> dict[Path, Profile]:
    """The averages in a run folder, by their names, in order of time."""
    matches = [(path, _NAME.fullmatch(path.name)) for path in folder.glob("ema-*.safetensors")]
    found = {path: Profile(float(m[1]), int(m[2])) for path, m in matches if m and path.is_file()}
    return dict(sorted(found.items(), key=lambda item: (item[1].end, item[1].length)))


def drop_later(folder: Path, nimg: int) -> None:
    """Deletes averages of after `nimg` images, which a run that goes on from there may make differently."""
    for path, profile in stored_averages(folder).items():
        if profile.end > nimg:
            try:
                path.unlink()
            except OSError as e:
                raise UserError(f"cannot remove {path}: {e.strerror}") from e


def reconstruct(folder: Path, length: float, kimg: float | None = None) -> Reconstruction:
    """The average of `length` (sigma_rel) after `kimg` (one at which averages were stored; None: the last).

    Raises UserError if the length is out of range, nothing is stored (at that time), or files don't go together.
    """
    if not SHORTEST <= length <= LONGEST:
        raise UserError(f"--length={length:g}: lengths (sigma_rel) lie from {SHORTEST} to {LONGEST}")
    stored = stored_averages(folder)
    if not stored:
        raise UserError(f"{folder} holds no averages (ema-*.safetensors): train with --posthoc-ema=1 to have some")
    end = _end(stored, kimg)
    stored = {path: profile for path, profile in stored.items() if profile.end <= end}
    shares, misfit = coefficients(list(stored.values()), Profile(length, end))
    content = _weighted_sum(dict(zip(stored, shares)), stored)
    content.provenance = content.provenance | {"ema_length": length, "ema_misfit": misfit}
    return Reconstruction(content, len(stored), misfit)


def _end(stored: dict[Path, Profile], kimg: float | None) -> float:
    """Images at the end of the average; a time is named by its whole kimg, as snapshots are, or exactly."""
    times = sorted({profile.end for profile in stored.values()})
    if kimg is None:
        return times[-1]
    fitting = [t for t in times if t == round(kimg * 1000) or t // 1000 == kimg]
    if not fitting:
        near = sorted(sorted(times, key=lambda t: abs(t - kimg * 1000))[:4])
        raise UserError(
            f"--kimg={kimg:g}: no averages were stored there; near it they were at {_listed([t / 1000 for t in near])}"
        )
    return fitting[-1]


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:.10g}" for number in numbers)


def _weighted_sum(shares: dict[Path, float], profiles: dict[Path, Profile]) -> NetworkFile:
    """The sum of the averages times their shares, in float64; what has no fraction is the last one's."""
    total: dict[str, torch.Tensor] = {}
    content, last = None, None
    for path, share in shares.items():
        if share == 0:
            continue
        content = files.read(path)
        record = _record(content, path, profiles[path])
        _check_same(record, last, path)
        for name, tensor in record.tensors.items():
            if tensor.is_floating_point():
                total[name] = total.get(name, 0) + tensor.double() * share
        last = record
    assert content is not None
    assert last is not None
    last.tensors = {name: total[name].to(t.dtype) if name in total else t for name, t in last.tensors.items()}
    return content


def _record(content: NetworkFile, path: Path, profile: Profile) -> NetworkRecord:
    said = (content.provenance.get("ema_length"), content.provenance.get("nimg"))
    if said != (profile.length, profile.end):
        raise UserError(f"{path} is no average of length {profile.length} after {profile.end} images, as its name says")
    record = content.networks.get("G_ema")
    if record is None:
        raise UserError(f"{path} holds no G_ema")
    return record


def _check_same(record: NetworkRecord, other: NetworkRecord | None, path: Path) -> None:
    if other is not None and record.plain() != other.plain():
        raise UserError(f"{path} is of another network than the averages before it")


def average_provenance(length: float, nimg: int) -> dict[str, Any]:
    """What the file of an average says of it."""
    return {"kimg": nimg / 1000, "nimg": nimg, "ema_length": length}
