"""`python -m torch_utils.ops`: which implementation of every op runs here, and why the others don't."""

import warnings

import click
import torch

import dnnlib.cli
from torch_utils.ops import bias_act, conv2d_resample, neighborhood_attention, upfirdn2d
from torch_utils.ops.build import library

COMPILED = {
    "bias_act": bias_act.bias_act,
    "upfirdn2d": upfirdn2d.upfirdn2d,
    "na2d": neighborhood_attention.na2d,
}


def _rows() -> list[tuple[str, str, str, str]]:
    """(op, device, implementation, remark) of every op."""
    rows = []
    for device in ("cpu", "cuda"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the table shows the reason
            status = library.ensure(device)
        compiled = f"C++ ({torch.ops.styleloom.cpu_isa()})" if device == "cpu" and status.loaded else "CUDA"
        for op in COMPILED:
            if status.loaded:
                rows.append((op, device, compiled, "compiled kernels loaded"))
            elif device == "cuda" and not torch.cuda.is_available():
                rows.append((op, device, "none", status.reason))
            else:
                rows.append((op, device, "PyTorch", status.reason))
        if device == "cpu" or torch.cuda.is_available():
            composed = "torch's convolution and upfirdn2d"
            rows.append((conv2d_resample.conv2d_resample.__name__, device, "PyTorch", composed))
    return rows


@click.command(cls=dnnlib.cli.Command)
def main() -> None:
    """Prints a table of the custom ops: op, device, implementation in use, and why. Builds what can be built."""
    rows = [("op", "device", "in use", "why"), *_rows()]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        click.echo("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]]))
    click.echo(f"build cache: {library.cache_root()}")


if __name__ == "__main__":
    main()
