"""Autoencoders between pictures and latents: `AutoencoderKL` of the library diffusers, from a folder that it saved."""

import contextlib
import functools
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch

from dnnlib import hub
from dnnlib.cache import file_sha256
from dnnlib.errors import UserError
from dnnlib.files import read_json

PLACE_VARIABLE = "STYLELOOM_AUTOENCODER"  # where the autoencoder lies, whatever data sets and network files say
_CONFIG, _WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
_KIND = "AutoencoderKL"
_AT_ONCE = 16  # pictures that go through it together


class AutoencoderFiles(NamedTuple):
    """The two files of an autoencoder."""

    config: Path
    weights: Path


class Autoencoder:
    """An autoencoder with frozen weights. What it is called with may lie on any device, to which it follows."""

    def __init__(self, model: Any, digest: str):
        self._model, self.digest = model, digest
        config = model.config
        self.scale = float(config.scaling_factor)
        self.shift = float(config.shift_factor or 0.0)
        self.picture_channels = int(config.in_channels)
        self.factor = 2 ** (len(config.block_out_channels) - 1)  # side of a picture over that of its latent

    @torch.no_grad()
    def moments(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures [N, C, H, W] in [-1, 1] -> mean and standard deviation of their latents, [N, 2 c, h, w]."""
        self._model.to(pictures.device)
        found = [self._model.encode(part).latent_dist for part in pictures.split(_AT_ONCE)]
        return torch.cat([torch.cat([d.mean, d.std], dim=1) for d in found])

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [N, c, h, w], neither shifted nor scaled -> pictures [N, C, H, W] about [-1, 1]; differentiable."""
        self._model.to(latents.device)
        return torch.cat([self._model.decode(part.float()).sample for part in latents.split(_AT_ONCE)])


def load_autoencoder(place: str) -> Autoencoder:
    """The autoencoder in a folder, or at hf://ORGANISATION/NAME[/SUBFOLDER]; without a place, in that of
    $STYLELOOM_AUTOENCODER. Once per process. UserError where it is missing or damaged."""
    place = place or os.environ.get(PLACE_VARIABLE, "")
    if not place:
        raise UserError("where is the autoencoder? --autoencoder=FOLDER says it, one that diffusers saved")
    return _loaded(place, may_download=True)


def recorded_autoencoder(place: str, digest: str) -> Autoencoder:
    """The one that a data set or a network file names, unless $STYLELOOM_AUTOENCODER says where it lies now. UserError
    where it is missing or damaged, or another one lies there; official files name neither place nor digest.

    No file decides what is downloaded: of the hub only what is in the cache already, or what the variable names."""
    said = os.environ.get(PLACE_VARIABLE)
    place = said or place
    if not place:
        raise UserError(
            f"this network makes latents and names no autoencoder: {PLACE_VARIABLE}=FOLDER, or hf://..., says which "
            "one to decode with"
        )
    found = _loaded(place, may_download=bool(said))
    if digest and found.digest != digest:
        raise UserError(
            f"{place} holds another autoencoder (SHA-256 {found.digest[:12]}...) than that of these latents "
            f"({digest[:12]}...): {PLACE_VARIABLE}=FOLDER says where that one lies"
        )
    return found


@functools.lru_cache(maxsize=2)
def _loaded(place: str, may_download: bool) -> Autoencoder:
    files = _find(place, may_download)
    digest = _digest(files)
    model_class = _diffusers().AutoencoderKL
    with tempfile.TemporaryDirectory() as folder:
        for name, file in zip((_CONFIG, _WEIGHTS), files):
            os.symlink(file.resolve(), Path(folder, name))
        try:
            # Without mmap-ing helpers of a further package, and never from the network.
            model = model_class.from_pretrained(
                folder, use_safetensors=True, low_cpu_mem_usage=False, local_files_only=True
            )
        except Exception as e:  # whatever damaged files lead to in the library
            raise UserError(f"{place} is no {_KIND} that diffusers can load: {' '.join(str(e).split())[:160]}") from e
    return Autoencoder(model.float().eval().requires_grad_(False), digest)


def _find(place: str, may_download: bool) -> AutoencoderFiles:
    """The files at a place, downloaded where need be and allowed. UserError where they are not there."""
    if hub.is_hub(place):
        return _on_the_hub(place, may_download)
    folder = Path(place).expanduser()
    files = AutoencoderFiles(folder / _CONFIG, folder / _WEIGHTS)
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UserError(
            f"there is no autoencoder in {place} (no {missing[0]}): {PLACE_VARIABLE}=FOLDER, or hf://..., says where "
            "one lies that diffusers has saved"
        )
    return files


def _on_the_hub(place: str, may_download: bool) -> AutoencoderFiles:
    hub.parse(place, "model")  # before a name is added to what may be no address
    try:
        return AutoencoderFiles(
            *(hub.fetch(f"{place}/{name}", "model", (), may_download) for name in (_CONFIG, _WEIGHTS))
        )
    except UserError as e:
        if may_download:
            raise
        raise UserError(f"these latents want the autoencoder {place}: {PLACE_VARIABLE}={place} downloads it") from e


def _digest(files: AutoencoderFiles) -> str:
    """SHA-256 (hex) of the weights and of what the config says, but for the notes of the library in it."""
    config = read_json(files.config)
    if not isinstance(config, dict) or config.get("_class_name") != _KIND:
        kind = config.get("_class_name") if isinstance(config, dict) else None
        raise UserError(f"{files.config} describes {kind or 'no autoencoder'}; only {_KIND} can be used")
    said = {key: value for key, value in config.items() if not key.startswith("_")}
    text = json.dumps(said, sort_keys=True) + file_sha256(files.weights)
    return hashlib.sha256(text.encode()).hexdigest()


def _diffusers() -> ModuleType:
    """The library. UserError that says what to install."""
    try:
        with _hidden("torchvision"), _hidden("transformers"):
            import diffusers

            _ = diffusers.AutoencoderKL  # the library imports its parts when they are first asked for
    except ImportError as e:
        raise UserError(f"latents need the package {e.name or 'diffusers'}: pip install 'styleloom[latents]'") from e
    except RuntimeError as e:  # how the library says that a part of it can't be imported
        raise UserError(f"diffusers can't be used here: {' '.join(str(e).split())[:200]}") from e
    return diffusers


@contextlib.contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Inside, a package seems not to be installed unless it is imported already. diffusers imports some that an
    autoencoder doesn't need if it finds them, and fails where their build does not fit this torch."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
