"""What ptxas says of the CUDA kernels: registers, stack, shared memory and spills, as the table of docs/performance.md.

    python benchmarks/cuda_resources.py

Compiles with nvcc for sm_80 and sm_90; needs no GPU and runs nothing.
"""

import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parent.parent))

from torch_utils.ops.build import toolchain

ARCHITECTURES = ("80", "90")
TYPES = {
    "double": "float64",
    "float": "float32",
    "styleloom::HalfBits": "float16",
    "styleloom::BFloat16Bits": "bfloat16",
}
_ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<arch>\d+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Use:
    """One instance of a kernel on one architecture."""

    kernel: str
    dtype: str
    arch: str
    registers: int
    stack: int
    shared: int
    spills: int


def compile_source(source: Path, folder: str) -> str:
    """What nvcc and ptxas say while they compile one source."""
    archs = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    target = Path(folder) / f"{source.stem}.o"
    command = [
        toolchain.find_nvcc(),
        "-std=c++17",
        "-O3",
        "-Xptxas",
        "-v",
        *archs,
        "-c",
        str(source),
        "-o",
        str(target),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def uses(output: str) -> list[Use]:
    """ptxas' report -> one entry per instance, names demangled by c++filt."""
    entries = list(_ENTRY.finditer(output))
    mangled = "\n".join(e["name"] for e in entries)
    names = subprocess.run(["c++filt"], input=mangled, capture_output=True, text=True, check=True).stdout.splitlines()
    found = []
    for entry, name in zip(entries, names, strict=True):
        # `void styleloom::gpu::run<styleloom::gpu::(anonymous namespace)::Outputs<float, float> >(...)`
        match = re.search(r"run<.*?(\w+)<([\w:]+)", name)
        assert match is not None, name
        shared = re.search(r"(\d+) bytes smem", entry["rest"])
        found.append(
            Use(
                kernel=match[1],
                dtype=TYPES[match[2]],
                arch=entry["arch"],
                registers=int(entry["registers"]),
                stack=int(entry["stack"]),
                shared=int(shared[1]) if shared else 0,
                spills=int(entry["stores"]) + int(entry["loads"]),
            )
        )
    return found


def rows(found: list[Use]) -> list[str]:
    """Lines of a Markdown table, one per kernel and type: the range over its instances."""
    groups: dict[tuple[str, str], list[Use]] = defaultdict(list)
    for use in found:
        groups[use.kernel, use.dtype].append(use)
    lines = []
    for (kernel, dtype), members in sorted(groups.items()):
        registers = (span([u.registers for u in members if u.arch == a]) for a in ARCHITECTURES)
        others = (span([getattr(u, name) for u in members]) for name in ("stack", "shared", "spills"))
        cells = [f"`{kernel}`", dtype, str(len(members) // len(ARCHITECTURES)), *registers, *others]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def span(values: list[int]) -> str:
    """`48` or `40-64`."""
    return f"{min(values)}" if min(values) == max(values) else f"{min(values)}-{max(values)}"


@click.command()
def main() -> None:
    """Prints the table."""
    head = ["kernel", "type", "instances", *(f"registers sm_{a}" for a in ARCHITECTURES), "stack", "shared", "spilled"]
    click.echo(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    with tempfile.TemporaryDirectory() as folder:
        for source in sorted((toolchain.CSRC / "cuda").glob("*.cu")):
            click.echo("\n".join(rows(uses(compile_source(source, folder)))))


if __name__ == "__main__":
    main()
