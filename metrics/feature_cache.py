"""Features of data sets, kept on disk under a name made of everything they depend on."""

import dataclasses
import hashlib
import json
import logging
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dnnlib import cache
from dnnlib.files import WriteError, atomic_path
from metrics.features import Collected
from metrics.formulas.frechet import Moments

_FORMAT = 1
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class FeatureKey:
    """What cached features depend on."""

    dataset_hash: str  # of the files
    reader_version: int  # of what makes pixels of them
    detector: str
    detector_version: str
    weights_sha256: str
    resize_mode: str
    subset: str
    kind: str


class FeatureCache:
    """A folder of safetensors files; each carries its whole key, which is compared on reading."""

    def __init__(self, cache_dir: str | Path | None = None) -> None:
        self._folder = cache.cache_root(cache_dir) / "features"

    def path(self, key: FeatureKey) -> Path:
        """The file for a key."""
        return self._folder / f"{key.detector}-{hashlib.sha256(_identity(key).encode()).hexdigest()[:24]}.safetensors"

    def load(self, key: FeatureKey) -> Collected | None:
        """What `save` stored, or None if there is nothing, or it is damaged."""
        try:
            with safe_open(self.path(key), "pt") as file:
                if (file.metadata() or {}).get("key") != _identity(key):
                    return None
                if key.kind == "moments":
                    return Moments(int(file.get_tensor("count")), file.get_tensor("mean"), file.get_tensor("cov"))
                return file.get_tensor("rows")
        except (OSError, SafetensorError):
            return None

    def save(self, key: FeatureKey, value: Collected) -> None:
        """Stores features; readers see the whole file or none. A folder that can't be written costs time, no result."""
        try:
            self._write(key, value)
        except (OSError, SafetensorError, WriteError) as e:
            _log.warning("features of the data set are not cached: %s", e)

    def _write(self, key: FeatureKey, value: Collected) -> None:
        if isinstance(value, Moments):
            tensors = {"count": torch.tensor(value.count), "mean": value.mean, "cov": value.cov}
        else:
            tensors = {"rows": value.contiguous()}
        self._folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.path(key)) as part:
            save_file(tensors, part, metadata={"key": _identity(key)})


def _identity(key: FeatureKey) -> str:
    return json.dumps({"format": _FORMAT} | dataclasses.asdict(key), sort_keys=True)
