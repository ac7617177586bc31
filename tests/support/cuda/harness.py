"""Builds the CUDA library of the ops for the CPU and lets `ops.use("compiled")` run it on CPU tensors.

The sources are those that nvcc compiles, the binding included; only CUDA's and torch's CUDA headers are stand-ins
(`emulator/include/`), and `emulator/` executes what is launched.
"""

import ctypes
import os
import re
import shlex
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from torch_utils.ops import bias_act, neighborhood_attention, upfirdn2d  # noqa: F401  (they define the ops)
from torch_utils.ops.build import library, toolchain
from torch_utils.ops.build.toolchain import Recipe

EMULATOR = Path(__file__).parent / "emulator"
# nvcc lets float multiplications and additions fuse, and its kernels read memory through 16-byte vectors.
KERNEL_FLAGS = (
    "-std=c++20 -O1 -g1 -fPIC -U_FORTIFY_SOURCE -D__CUDACC__ -fno-strict-aliasing -ffp-contract=fast "
    f"-Wno-unknown-pragmas -I{EMULATOR}/include -include cuda_runtime.h -x c++"
)
OPS = ("na2d", "na2d_backward", "na2d_qk", "na2d_av", "na2d_avt", "bias_act", "bias_act_grad", "upfirdn2d")
_CUDA = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)


def extra_flags() -> str:
    """Flags of the environment, such as a sanitizer's."""
    return os.environ.get("STYLELOOM_OPS_CFLAGS", "")


def recipe(csrc: Path = toolchain.CSRC) -> Recipe:
    """The build of the whole library: kernels, their binding, and the emulator."""
    command, extra = toolchain.find_compiler(), extra_flags()
    compiler = shlex.join(command)
    compiled = [(csrc / "cuda" / f"{name}.cu", KERNEL_FLAGS) for name in toolchain.CUDA_KERNELS]
    compiled += [(EMULATOR / f"{name}.cpp", KERNEL_FLAGS) for name in ("emulator", "fibers")]
    compiled.append((csrc / "cuda" / "binding.cpp", f"-I{EMULATOR}/include {toolchain.binding_flags()} -O0"))
    lib = Path(torch.__file__).parent / "lib"
    lines = [
        "ninja_required_version = 1.3",
        f"rule cxx\n  command = {compiler} $flags {extra} -c $in -o $out",
        f"rule link\n  command = {compiler} -shared {extra} $in -o $out -L{lib} -lc10 -ltorch_cpu -ltorch",
    ]
    for source, flags in compiled:
        lines.append(f"build {source.stem}.o: cxx {toolchain.escape(source)}\n  flags = {flags}")
    lines.append(f"build kernels.so: link {' '.join(f'{source.stem}.o' for source, _ in compiled)}")
    ninja_file = "\n".join(lines) + "\n"
    return Recipe(
        "cuda_on_cpu", ninja_file, toolchain.key_of(ninja_file, toolchain.tool_version(command), csrc, EMULATOR)
    )


@cache
def load(path: Path | None = None) -> ctypes.CDLL:
    """The library (built unless it is cached), its ops registered under CUDA's dispatch key. One for each process."""
    built = path or library.build(recipe())
    torch.ops.load_library(built)
    loaded = ctypes.CDLL(str(built))  # with those that it needs, such as the emulator of a faulty one
    loaded.cuda_on_cpu_launches.restype = ctypes.c_char_p
    return loaded


def set_order(order: int) -> None:
    """Of blocks and threads between barriers. 0: as they are numbered; 1: reversed; else shuffled by this seed."""
    load().cuda_on_cpu_set_order(ctypes.c_int64(order))


def launches() -> dict[str, int]:
    """Launches of every kernel instance of the library since it was loaded, by name: `ForwardTeams<float, 4>`."""
    lines = load().cuda_on_cpu_launches().decode().splitlines()
    return {_short(name): int(count) for count, name in (line.split(" ", 1) for line in lines)}


def counts() -> dict[str, int]:
    """What has been executed since the library was loaded."""
    names = ("launches", "blocks", "threads", "barriers", "shuffles")
    values = (ctypes.c_int64 * len(names))()
    load().cuda_on_cpu_counts(values)
    return dict(zip(names, values))


def _short(name: str) -> str:
    """`... [with Body = styleloom::gpu::{anonymous}::Outputs<float, float>]` -> `Outputs<float, float>`."""
    match = re.search(r"with Body = (.*)\]$", name)
    assert match is not None, name
    return re.sub(r"styleloom::|gpu::|\{anonymous\}::|\(anonymous namespace\)::", "", match[1])


@contextmanager
def executing(path: Path | None = None) -> Iterator[None]:
    """Inside the block, the compiled ops of CPU tensors are the CUDA library's."""
    load(path)
    was = dict(library._statuses)
    registered = torch.library.Library("styleloom", "IMPL")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*Overriding a previously registered kernel")
        for name in OPS:
            registered.impl(name, _redirected(getattr(torch.ops.styleloom, name).default), "CPU")
    library._statuses["cpu"] = library.Status(True)  # so that the CPU's kernels don't come and take their place
    try:
        yield
    finally:
        registered._destroy()
        library._statuses.clear()
        library._statuses.update(was)


def _redirected(op):
    return lambda *args: op.redispatch(_CUDA, *args)


def build_with_fault(source: str, fault: tuple[str, str], work: Path) -> Path:
    """A library whose attention kernels are made from csrc/cuda with `fault[0]` replaced by `fault[1]` in one file.

    It holds float32 instances only. They take the place of those of the good library, which comes with it, in a process
    that loads it instead.
    """
    good = library.build(recipe())
    for folder in ("shared", "cuda"):
        shutil.copytree(toolchain.CSRC / folder, work / folder)
    faulty = work / "cuda" / source
    text = faulty.read_text()
    assert text.count(fault[0]) == 1, f"{source} holds {text.count(fault[0])} times: {fault[0]}"
    faulty.write_text(text.replace(*fault))
    main, result = work / "cuda" / "attention.cu", work / "faulty.so"
    main.write_text(re.sub(r"^SL_INSTANTIATE\((?!float\)).*\n", "", main.read_text(), flags=re.M))
    command = [*toolchain.find_compiler(), *KERNEL_FLAGS.split(), *extra_flags().split(), "-shared", main]
    subprocess.run([*command, "-x", "none", good, f"-Wl,-rpath,{good.parent}", "-o", result], check=True)
    return result
