"""Faults planted in the CUDA kernels, and what becomes of each: `python -m support.cuda.faults LIBRARY...`.

Runs every library, which `harness.build_with_fault` made, in a forked process of its own on the same small problem and
prints a line of JSON for each: `[library, what happened]`, "equal" where nothing did.
"""

import json
import os
import sys
from pathlib import Path

import torch

from support.cuda import harness
from support.op_cases import attention_inputs, attention_orders, error
from torch_utils import ops
from torch_utils.ops.neighborhood_attention import na2d

SHAPE, KERNEL, DILATION = (1, 9, 21, 2, 8), (3, 5), (2, 1)
FAULTS = {  # name: file, text, what takes its place, what must be said of it
    "one pair too many": ("attention.cu", "r >= w.kernel_y ||", "r > w.kernel_y ||", "differs"),
    "no barrier": ("attention.cu", "      __syncthreads();\n", "", "differs"),
    "a mask of half a warp": ("attention_teams.cuh", "0xffffffffu", "0x0000ffffu", "its mask leaves it out"),
    "a thread that leaves early": (
        "attention.cu",
        "    __shared__ Sum",
        "    if (threadIdx.x == 7) return;\n    __shared__ Sum",
        "thread 0 waits at the barrier of attention.cu:41, but thread 7 has ended",
    ),
    "vectors anywhere": ("attention.cu", "reinterpret_cast<uintptr_t>(v.data) % 16 == 0", "true", "no multiple"),
}


def problem(implementation: str, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """All orders of derivatives; and the output for inputs at addresses that are no multiples of 16."""
    shifted = [t.new_empty(t.numel() + 1)[1:].view(t.shape).copy_(t) for t in tensors]
    with ops.use(implementation):
        y = na2d(*shifted[:3], KERNEL, DILATION, shifted[3])
    return [*attention_orders(implementation, tensors, KERNEL, DILATION), y]


def outcome(path: Path) -> str:
    """What the library does to the problem: an error, another result, or nothing."""
    tensors = attention_inputs(SHAPE, KERNEL, torch.float32)
    want = problem("ref", [t.double() for t in tensors])
    try:
        with harness.executing(path):
            got = problem("compiled", tensors)
    except RuntimeError as e:
        return str(e)
    errors = [error(a, b) for a, b in zip(got, want)]
    return "equal" if all(e < 1e-5 for e in errors) else f"differs: {errors}"


def main(paths: list[str]) -> None:
    for path in paths:
        if os.fork() == 0:
            print(json.dumps([path, outcome(Path(path))]), flush=True)
            os._exit(0)
        os.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
