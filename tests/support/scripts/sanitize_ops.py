"""`python tests/support/scripts/sanitize_ops.py`: the compiled ops on the test grid under the address and
undefined-behaviour sanitizers.

Builds the CPU kernels, and the CUDA kernels for the CPU, with the sanitizers into cache entries of their own and runs
the op tests in processes that load the sanitizers' run time first: the CPU kernels once for each instruction set of
the binary. At last a fault is planted that only the sanitizers can see. Exit status 0: clean, and the fault was caught.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[3]
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1"
GRID = "against or fuzz or strided or layouts or last or bfloat16 or golden or sixteen or hydra or full_attention"
OVERRUN = ("attention.cu", "at(a.scores, p, p.y, p.x)[entry] =", "at(a.scores, p, p.y, p.x)[entry + 1] =")


def runtime(name: str) -> str:
    """Path of one of the compiler's run-time libraries."""
    return subprocess.run(
        ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()


def environment() -> dict[str, str]:
    """Of a process that builds with the sanitizers."""
    return {**os.environ, "STYLELOOM_OPS_CFLAGS": FLAGS, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}


def sanitized() -> dict[str, str]:
    """Of a process that runs what was built with the sanitizers."""
    return environment() | {
        "LD_PRELOAD": f"{runtime('libasan.so')} {runtime('libubsan.so')} {runtime('libstdc++.so.6')}",
        # Leaks are the interpreter's own. Stacks of fibers must not move to the sanitizer's heap.
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def python(code: str, *arguments: str) -> None:
    """Runs code that builds: not under the sanitizers, nor must the compiler be."""
    subprocess.run([sys.executable, "-c", code, *arguments], env=environment(), check=True)


def tests(names: tuple[str, ...], chosen: str, **variables: str) -> int:
    """Exit status of some op tests under the sanitizers."""
    files = [str(ROOT / f"tests/ops/test_{name}.py") for name in names]
    command = [sys.executable, "-m", "pytest", "-x", "-m", "not soak", "-k", chosen, *files]
    return subprocess.run(command, env=sanitized() | variables).returncode


def catches_an_overrun() -> bool:
    """Whether a kernel that writes beyond its tensor is stopped."""
    with tempfile.TemporaryDirectory() as work:
        build = (
            "import sys, pathlib; from support.cuda import harness; "
            "print(harness.build_with_fault(sys.argv[1], tuple(sys.argv[2:4]), pathlib.Path(sys.argv[4])))"
        )
        python(build, *OVERRUN, f"{work}/csrc")
        command = [sys.executable, "-m", "support.cuda.faults", f"{work}/csrc/faulty.so"]
        result = subprocess.run(command, env=sanitized(), capture_output=True, text=True)
    return "ERROR: AddressSanitizer" in result.stderr


def main() -> int:
    """The exit status."""
    # Built before the run time is preloaded: the compiler must not run under it.
    python("from torch_utils.ops.build import library, toolchain; library.build(toolchain.recipe('cpu'))")
    python("from support.cuda import harness; harness.library.build(harness.recipe())")
    status = tests(("cuda_on_cpu",), "not fault")
    for isa in ("baseline", "avx2", "avx512"):
        names = ("ops_attention", "ops_images", "ops_golden", "ops_dense_attention")
        status = status or tests(names, GRID, STYLELOOM_OPS_ISA=isa)
    caught = catches_an_overrun()
    print("a planted overrun was", "caught" if caught else "MISSED")
    return status or int(not caught)


if __name__ == "__main__":
    sys.exit(main())
