"""`python tests/support/scripts/sanitize_ops.py`: the CPU kernels on the test grid under sanitizers (address, undefined
behaviour).

Builds the kernels with the sanitizers into their own cache entry and runs the op tests in a process that loads the
sanitizers' run time first, once for each instruction set of the binary. Exit status 0: clean.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1"
GRID = "against_the or fuzz or strided or layouts or golden or sixteen or hydra or full_attention"


def runtime(name: str) -> str:
    """Path of one of the compiler's run-time libraries."""
    return subprocess.run(
        ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()


def main() -> int:
    # Built before the run time is preloaded: the compiler must not run under it.
    build = "from torch_utils.ops.build import library, toolchain; library.build(toolchain.recipe('cpu'))"
    flags = {**os.environ, "STYLELOOM_OPS_CFLAGS": FLAGS, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", build], env=flags, check=True)
    files = [str(ROOT / f"tests/ops/test_ops_{name}.py") for name in ("attention", "images", "golden")]
    status = 0
    for isa in ("baseline", "avx2", "avx512"):
        env = {
            **flags,
            "STYLELOOM_OPS_ISA": isa,
            "LD_PRELOAD": f"{runtime('libasan.so')} {runtime('libubsan.so')} {runtime('libstdc++.so.6')}",
            "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter's own
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
        result = subprocess.run([sys.executable, "-m", "pytest", "-x", "-k", GRID, *files], env=env)
        status = status or result.returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
