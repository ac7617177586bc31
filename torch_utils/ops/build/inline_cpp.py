"""C++ kernels of one's own: a source in a string, compiled once and cached beside the project's kernels."""

import ctypes
import hashlib
import os
import subprocess
import tempfile
import warnings
from pathlib import Path

from torch_utils.ops.build import library, toolchain
from torch_utils.ops.build.toolchain import BuildError


def load_source(name: str, code: str) -> ctypes.CDLL | None:
    """The library of a C++17 source, whose `extern "C"` functions can be called; None, with a warning that says why,
    where it can't be built.

    `name` is a Python identifier, for the cache folder and messages. Without torch's headers (pass pointers,
    `tensor.data_ptr()`, and sizes) a source compiles in about a second. Raises ValueError for another name.
    """
    if not name.isidentifier():
        raise ValueError(f"the name of a source is an identifier, not {name!r}")
    try:
        return ctypes.CDLL(str(_library(name, code)))
    except (BuildError, OSError) as e:
        reason = " ".join(str(e).split())
        warnings.warn(f"the compiled {name} is not in use: {reason}", stacklevel=2)
        return None


def _library(name: str, code: str) -> Path:
    """Built in a folder of this process and moved to its place when finished: a killed build leaves no library."""
    compiler = toolchain.find_compiler()
    command = [*compiler, *toolchain.KERNEL_FLAGS.split(), "-shared"]
    parts = [os.uname().machine, toolchain.tool_version(compiler), *command, code]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    built = library.cache_root() / f"styleloom_{name}_{key}" / f"{name}.so"
    if library.is_whole(built):
        return built
    built.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="work-", dir=built.parent) as work:
        source, result = Path(work) / f"{name}.cpp", Path(work) / built.name
        source.write_text(code, encoding="utf-8")
        run = subprocess.run([*command, str(source), "-o", str(result)], capture_output=True, text=True, check=False)
        if run.returncode != 0:
            raise BuildError(f"the compiler failed: {library.first_error(run.stderr)}")
        library.install(result, built)
    return built
