"""What a build of the compiled ops consists of: tools, sources, flags, and the ninja file that ties them together."""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

CSRC = Path(__file__).parents[1] / "csrc"

# g++ may fuse multiply-add and ignore errno and traps, but keeps NaN and infinity.
_MATH_FLAGS = "-fno-math-errno -fno-trapping-math -fno-signed-zeros -ffp-contract=fast"
KERNEL_FLAGS = f"-std=c++17 -O3 -fPIC {_MATH_FLAGS}"
BINDING_FLAGS = "-std=c++20 -O1 -fPIC -fopenmp"
_AVX512 = "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma"
_X86_ISAS = {
    "baseline": "-DSL_VECTOR_BYTES=16",
    "avx2": "-DSL_VECTOR_BYTES=32 -mavx2 -mfma",
    # 32-byte vectors here too: a window row of up to 8 keys fills them; what counts are the 32 registers.
    "avx512": f"-DSL_VECTOR_BYTES=32 {_AVX512}",
}
# The rows of dense attention run where there are matrix units; on those processors whole vectors pay.
_DENSE_FLAGS = f"-DSL_VECTOR_BYTES=64 -mprefer-vector-width=512 {_AVX512}"
_CPU_KERNELS = ("attention/attention", "bias_act", "upfirdn2d")  # below csrc/cpu
CUDA_KERNELS = ("attention", "bias_act", "upfirdn2d")  # below csrc/cuda


class BuildError(Exception):
    """The kernels can't be built here. The message is one line: why, and what to install."""


@dataclass(frozen=True)
class Recipe:
    """One shared library: its ninja file and the key under which the result is cached."""

    device: str
    ninja_file: str
    key: str


def find_ninja() -> str:
    """Path of a ninja that runs: on PATH, or beside the interpreter, where the PyPI package puts it."""
    beside = str(Path(sys.executable).parent)
    found = [path for path in (shutil.which("ninja"), shutil.which("ninja", path=beside)) if path is not None]
    if not found:
        raise BuildError("ninja is missing: pip install ninja")
    for path in found:
        try:
            tool_version([path])
            return path
        except BuildError as e:
            broken = e
    raise BuildError(f"{broken}; install another one: pip install ninja")


def find_compiler() -> list[str]:
    """The command of the C++ compiler: $CXX, which may hold more words than one ("ccache g++"), else c++ or g++."""
    wanted = os.environ.get("CXX")
    for words in [shlex.split(wanted)] if wanted else [["c++"], ["g++"]]:
        found = shutil.which(words[0]) if words else None
        if found is not None:
            return [found, *words[1:]]
    what = f"the C++ compiler {wanted!r} ($CXX) is missing" if wanted else "there is no C++ compiler"
    raise BuildError(f"{what}: install g++ 10 or newer (Debian: apt-get install g++)")


def find_nvcc() -> str:
    """Path of nvcc: in $CUDA_HOME, on PATH, or where CUDA installs itself."""
    home = os.environ.get("CUDA_HOME", os.environ.get("CUDA_PATH"))
    path = os.path.join(home, "bin") if home else None
    found = shutil.which("nvcc", path=path) or shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if found is None:
        raise BuildError(f"nvcc is missing: install the CUDA toolkit {torch.version.cuda} or set CUDA_HOME")
    return found


def cuda_home() -> Path:
    """The toolkit folder that nvcc's headers and libraries lie in (nvcc itself may be a wrapper elsewhere)."""
    candidates = [os.environ.get("CUDA_HOME"), Path(find_nvcc()).resolve().parent.parent, "/usr/local/cuda"]
    for folder in candidates:
        if folder and (Path(folder) / "include" / "cuda_runtime.h").exists():
            return Path(folder)
    raise BuildError("cuda_runtime.h is missing: install the CUDA toolkit or set CUDA_HOME")


def tool_version(command: list[str]) -> str:
    """What `COMMAND --version` says. BuildError if it doesn't run."""
    try:
        result = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    except OSError as e:
        raise BuildError(f"{' '.join(command)} does not run: {e.strerror or e}") from e
    if result.returncode != 0:
        said = (result.stderr or result.stdout).strip().splitlines()
        why = said[-1] if said else f"exit status {result.returncode}"
        raise BuildError(f"{' '.join(command)} does not run: {why}")
    return result.stdout


def isa_flags() -> dict[str, str]:
    """Flags of every instruction set that goes into the CPU library, by name."""
    return _X86_ISAS if os.uname().machine in ("x86_64", "AMD64") else {"baseline": "-DSL_VECTOR_BYTES=16"}


def binding_flags() -> str:
    """Flags of the sources that include torch."""
    include = Path(torch.__file__).parent / "include"
    abi = int(torch._C._GLIBCXX_USE_CXX11_ABI)
    return f"{BINDING_FLAGS} -isystem {_word(include)} -D_GLIBCXX_USE_CXX11_ABI={abi}"


def cuda_arch_flags() -> str:
    """nvcc -gencode flags: TORCH_CUDA_ARCH_LIST if set, else the GPUs of this machine."""
    listed = os.environ.get("TORCH_CUDA_ARCH_LIST")
    if listed:
        names = {name.removesuffix("+PTX").replace(".", "") for name in listed.replace(";", " ").split()}
    else:
        pairs = (torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count()))
        names = {f"{major}{minor}" for major, minor in pairs}
    return " ".join(f"-gencode=arch=compute_{name},code=sm_{name}" for name in sorted(names))


def _cpu_edges() -> list[tuple[str, str, str, str]]:
    """(rule, source, object, flags) of every compilation of the CPU library."""
    edges = [("cxx", f"cpu/{name}.cpp", f"{name}.o", binding_flags()) for name in ("binding", "dense_attention")]
    if "avx512" in isa_flags():
        edges.append(("cxx", "cpu/dense_rows.cpp", "dense_rows.o", f"{KERNEL_FLAGS} -DSL_ISA=dense_isa {_DENSE_FLAGS}"))
    for isa, flags in isa_flags().items():
        for kernel in _CPU_KERNELS:
            target = f"{Path(kernel).name}.{isa}.o"
            edges.append(("cxx", f"cpu/{kernel}.cpp", target, f"{KERNEL_FLAGS} -DSL_ISA={isa} {flags}"))
    return edges


def _cuda_edges() -> list[tuple[str, str, str, str]]:
    toolkit = cuda_home() / "include"
    edges = [("cxx", "cuda/binding.cpp", "binding.o", f"{binding_flags()} -isystem {_word(toolkit)}")]
    for kernel in CUDA_KERNELS:
        flags = f"-std=c++17 -O3 -Xcompiler -fPIC {cuda_arch_flags()}"
        edges.append(("nvcc", f"cuda/{kernel}.cu", f"{kernel}.o", flags))
    return edges


def key_of(ninja_file: str, versions: str, *folders: Path) -> str:
    """What a library is cached under: follows its ninja file, the tools, the files in `folders`, torch and machine."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    parts = [digest.hexdigest(), torch.__version__, versions, ninja_file, sys.platform, os.uname().machine]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _word(text: str | Path) -> str:
    """As one word of a command in a ninja file, which the shell will read."""
    return shlex.quote(str(text)).replace("$", "$$")


def _host_compiler(command: list[str]) -> str:
    """What nvcc is to call: it takes one program, without a cache in front."""
    name = next(word for word in command if Path(word).name not in ("ccache", "sccache", "distcc"))
    return shutil.which(name) or name


def escape(path: str | Path) -> str:
    """As a path in a `build` line of a ninja file."""
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def recipe(device: str) -> Recipe:
    """The build of one device's library.

    Raises:
        BuildError: a tool is missing.
    """
    find_ninja()
    command = find_compiler()
    compiler = " ".join(map(_word, command))
    edges = _cpu_edges() if device == "cpu" else _cuda_edges()
    extra = os.environ.get("STYLELOOM_OPS_CFLAGS", "")
    lib = Path(torch.__file__).parent / "lib"
    libraries = "-lc10 -ltorch_cpu -ltorch"
    versions = tool_version(command)
    lines = ["ninja_required_version = 1.3", f"rule cxx\n  command = {compiler} $flags {extra} -c $in -o $out"]
    if device == "cuda":
        nvcc = find_nvcc()
        versions += tool_version([nvcc])
        libraries += f" -lc10_cuda -ltorch_cuda -L{_word(cuda_home() / 'lib64')} -lcudart"
        lines.append(
            f"rule nvcc\n  command = {_word(nvcc)} -ccbin {_word(_host_compiler(command))} $flags -c $in -o $out"
        )
    lines.append(f"rule link\n  command = {compiler} -shared -fopenmp {extra} $in -o $out -L{_word(lib)} {libraries}")
    for rule, source, target, flags in edges:
        lines.append(f"build {target}: {rule} {escape(CSRC / source)}\n  flags = {flags}")
    lines.append(f"build kernels.so: link {' '.join(target for _, _, target, _ in edges)}")
    ninja_file = "\n".join(lines) + "\n"
    return Recipe(device, ninja_file, key_of(ninja_file, versions, CSRC))
