"""Builds and loads the compiled kernels: at first use, once per machine and version, safely from many processes."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from dnnlib.cache import file_sha256, user_cache
from dnnlib.errors import UserError
from dnnlib.files import WriteError
from dnnlib.locks import Lock
from torch_utils.ops.build import toolchain
from torch_utils.ops.build.toolchain import BuildError, Recipe

_LIBRARY = "kernels.so"


@dataclass(frozen=True)
class Status:
    """Whether the kernels of one device are loaded, and if not, why."""

    loaded: bool
    reason: str = ""


_statuses: dict[str, Status] = {}
_lock = threading.Lock()


def cache_root() -> Path:
    """$TORCH_EXTENSIONS_DIR, or torch_extensions in the user's cache directory."""
    configured = os.environ.get("TORCH_EXTENSIONS_DIR")
    if configured:
        return Path(configured).expanduser()
    return user_cache() / "torch_extensions"


def first_error(output: str) -> str:
    """The compiler's first error line, else ninja's last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower() or "fatal" in line.lower()), (lines or ["?"])[-1])


def _run_ninja(recipe: Recipe, work: Path) -> None:
    """Builds in `work`. What it does, and how far it is, goes to stderr: it may take a minute, out of the blue."""
    (work / "build.ninja").write_text(recipe.ninja_file)
    command = [toolchain.find_ninja(), "-C", str(work)]
    if "MAX_JOBS" in os.environ:
        command += ["-j", os.environ["MAX_JOBS"]]
    tqdm.write(f"compiling the {recipe.device} ops, once on this machine", file=sys.stderr)
    output = []
    form = "{n_fmt}/{total_fmt} files |{bar}| {elapsed} gone"
    bar = tqdm(total=0, bar_format=form, disable=None, leave=False, dynamic_ncols=True)  # on a terminal only
    with bar, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as ninja:
        assert ninja.stdout is not None
        for line in ninja.stdout:
            output.append(line)
            progress = re.match(r"\[(\d+)/(\d+)\]", line)  # how ninja begins the line of a finished file
            if progress:
                bar.total = int(progress[2])
                bar.update(int(progress[1]) - bar.n)
    if ninja.returncode != 0:
        raise BuildError(f"the compiler failed: {first_error(''.join(output))}")


def install(result: Path, library: Path) -> None:
    """Moves a finished library to its place, with its size and SHA-256 beside it; all of it is on the disk first."""
    record = result.with_name(f"{library.name}.sha256")
    record.write_text(_fingerprint(result))
    for file in (result, record):
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    os.replace(record, _record(library))
    os.replace(result, library)


def is_whole(library: Path) -> bool:
    """Whether a library is there as `install` left it. (Running one that a crash or a full disk cut off ends the
    process with a bus error.)"""
    try:
        return _record(library).read_text() == _fingerprint(library)
    except OSError:
        return False


def _record(library: Path) -> Path:
    return library.with_name(f"{library.name}.sha256")


def _fingerprint(file: Path) -> str:
    return f"{file.stat().st_size} {file_sha256(file)}\n"


def build(recipe: Recipe) -> Path:
    """Path of the library of a recipe, built unless a whole one is cached.

    Everything happens in a directory of this process; only a finished library is moved to its place, in one step.
    So a build that is killed leaves nothing that the next would take for a result.

    Raises:
        BuildError: the compiler fails or the cache can't be written.
    """
    folder = cache_root() / f"styleloom_{recipe.device}_{recipe.key}"
    library = folder / _LIBRARY
    if is_whole(library):
        return library
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Without locks two processes may both build, each in its own directory: wasteful but harmless.
        with Lock(folder / "lock", taken=None):
            if is_whole(library):  # another process built it while this one waited
                return library
            for abandoned in folder.glob("work-*"):
                shutil.rmtree(abandoned, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix="work-", dir=folder, ignore_cleanup_errors=True) as work:
                _run_ninja(recipe, Path(work))
                install(Path(work) / _LIBRARY, library)
    except (OSError, WriteError) as e:
        raise BuildError(f"can't write the build cache: {e}; set TORCH_EXTENSIONS_DIR to a writable place") from e
    return library


def _load(device: str) -> Status:
    if device == "cuda" and (torch.version.cuda is None or not torch.cuda.is_available()):
        return Status(False, "torch has no CUDA here")
    if device not in ("cpu", "cuda"):
        return Status(False, f"there are no kernels for {device} devices")
    try:
        torch.ops.load_library(build(toolchain.recipe(device)))
    except (BuildError, OSError, UserError) as e:
        return Status(False, " ".join(str(e).split()))
    return Status(True)


def ensure(device: str) -> Status:
    """Builds and loads the kernels of a device type ("cpu", "cuda") unless this process has tried before.

    Where that fails, warns once; the ops then run their PyTorch references.
    """
    status = _statuses.get(device)
    if status is not None:
        return status
    with _lock:
        if device not in _statuses:
            _statuses[device] = _load(device)
            if device in ("cpu", "cuda") and not _statuses[device].loaded:
                reason = _statuses[device].reason.rstrip(".")  # ninja's end with one
                warnings.warn(
                    f"the compiled {device} ops are not in use: {reason}. Slower PyTorch code runs instead",
                    stacklevel=3,
                )
        return _statuses[device]
