"""Detectors as plug-ins: what a feature network is called, where its weights come from, and how to build it."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from dnnlib import UserError, cache


class DetectorMissing(UserError):
    """The weights of a detector are neither on this machine nor to be had from the net."""


class Detector(Protocol):
    """A feature network ready to run."""

    resize_mode: str
    """Name of the way images come to the input size (metrics/detectors/resize.py), or how the file itself does it."""

    def __call__(self, images: torch.Tensor, outputs: Collection[str]) -> dict[str, torch.Tensor]:
        """Images uint8 [N, 3, H, W] -> the asked outputs: 'features' [N, D], 'probs' [N, classes], all float32."""


class PerceptualDistance(Protocol):
    """A detector that can also embed images so that squared differences are a perceptual distance (LPIPS)."""

    def lpips(self, images: torch.Tensor) -> torch.Tensor:
        """Float images [N, 3, H, W] in [0, 255] -> embeddings [N, D], float32."""


Build = Callable[[Path, "str | None"], Any]


@dataclasses.dataclass(frozen=True)
class DetectorInfo:
    """Everything about a detector except its weights.

    `locate` returns a local path of a weights file that ships with an installed package, or None.
    `build(path, resize_mode)` makes the module; resize_mode None means the detector's own.
    """

    name: str
    version: str
    outputs: tuple[str, ...]
    input_size: int
    resize_mode: str
    licence: str
    source: str
    build: Build
    file_name: str
    file_mb: int
    other_file_names: tuple[str, ...] = ()
    url: str | None = None
    sha256: str | None = None
    locate: Callable[[], Path | None] | None = None
    install_hint: str = ""


_DETECTORS: dict[str, DetectorInfo] = {}


def register_detector(info: DetectorInfo) -> DetectorInfo:
    """Makes a detector known by its name (metric names such as `fid5k_NAME`). A name may be given once only."""
    if info.name in _DETECTORS:
        raise ValueError(f"two detectors register the name {info.name!r}")
    _DETECTORS[info.name] = info
    return info


def detector_names() -> list[str]:
    """All registered detectors."""
    return sorted(_DETECTORS)


def detector_info(name: str) -> DetectorInfo:
    """The registered detector `name`; UserError if there is none."""
    if name not in _DETECTORS:
        raise UserError(f"unknown detector {name!r}; known: {', '.join(detector_names())}")
    return _DETECTORS[name]


def detectors_folder(cache_dir: str | Path | None = None) -> Path:
    """Where detector files put there by hand are looked for."""
    return cache.cache_root(cache_dir) / "detectors"


def find_weights(name: str, file: str | Path | None = None, cache_dir: str | Path | None = None) -> Path:
    """Local path of a detector's weights: the given file, a package, the cache folder, or the URL (then downloaded).

    A file whose SHA-256 is published is verified unless it was given explicitly in another form.
    Raises DetectorMissing naming the file, its size and where to put it, UserError for a wrong checksum.
    """
    info = detector_info(name)
    if file is not None:
        return _given_file(info, Path(file).expanduser())
    if info.locate is not None:
        if (path := info.locate()) is not None:
            return _verified(info, path)
        raise DetectorMissing(f"detector {info.name}: {info.install_hint}")
    for file_name in (info.file_name, *info.other_file_names):
        path = detectors_folder(cache_dir) / file_name
        if path.is_file():
            return _verified(info, path)
    return _download(info, cache_dir)


def assign_files(given: Sequence[str], wanted: Sequence[str]) -> dict[str, str]:
    """`--detector=` values -> {detector name: file}.

    `NAME=FILE` says it; a bare FILE is recognised by its published name, or belongs to the only detector in `wanted`
    that takes a file. UserError if that leaves a choice.
    """
    files = {}
    for text in given:
        name, eq, path = text.partition("=")
        if eq and name in _DETECTORS:
            files[name] = str(Path(path).expanduser())
        else:
            files[_owner(text, wanted)] = str(Path(text).expanduser())
    return files


def _owner(path: str, wanted: Sequence[str]) -> str:
    for info in sorted(_DETECTORS.values(), key=lambda info: info.name not in wanted):
        if Path(path).name in (info.file_name, *info.other_file_names):
            return info.name
    takers = sorted({name for name in wanted if detector_info(name).locate is None})
    if len(takers) == 1:
        return takers[0]
    raise UserError(
        f"--detector={path}: say which detector that file is for, --detector=NAME={path}; "
        f"the metrics use {', '.join(takers) or 'none that takes a file'}"
    )


def load_detector(
    name: str,
    device: torch.device | str = "cpu",
    *,
    file: str | Path | None = None,
    resize_mode: str | None = None,
    cache_dir: str | Path | None = None,
) -> Any:
    """The detector `name` on `device`; loading it again returns the same module as long as its file is unchanged."""
    path = find_weights(name, file, cache_dir).resolve()
    stat = path.stat()
    return _build(name, str(path), (stat.st_size, stat.st_mtime_ns), resize_mode, str(device))


@functools.lru_cache(maxsize=4)
def _build(name: str, path: str, stamp: tuple[int, int], resize_mode: str | None, device: str) -> Any:
    del stamp  # part of the key only
    module = detector_info(name).build(Path(path), resize_mode)
    return module.eval().requires_grad_(False).to(device)


@functools.lru_cache(maxsize=32)
def _sha256(path: str, stamp: tuple[int, int]) -> str:
    del stamp
    return cache.file_sha256(path)


def weights_sha256(path: Path) -> str:
    """Hex SHA-256 of a weights file, computed once per file and process."""
    stat = path.stat()
    return _sha256(str(path), (stat.st_size, stat.st_mtime_ns))


def _given_file(info: DetectorInfo, path: Path) -> Path:
    if not path.is_file():
        raise UserError(f"detector file {path} does not exist")
    if path.name == info.file_name:
        return _verified(info, path)
    return path


def _verified(info: DetectorInfo, path: Path) -> Path:
    if info.sha256 is not None and path.name == info.file_name and weights_sha256(path) != info.sha256:
        raise UserError(f"{path}: wrong SHA-256 {weights_sha256(path)}, {info.name} needs {info.sha256}; replace it")
    return path


def _download(info: DetectorInfo, cache_dir: str | Path | None) -> Path:
    place = detectors_folder(cache_dir)
    if info.url is None:
        raise DetectorMissing(f"detector {info.name}: put {info.file_name} into {place} or give --detector=FILE")
    try:
        return cache.fetch(info.url, info.sha256, cache_dir)
    except UserError as e:
        raise DetectorMissing(
            f"detector {info.name} needs {info.file_name} ({info.file_mb} MB, {info.url}), which is not here "
            f"and could not be downloaded; put it into {place} or give --detector=FILE"
        ) from e
