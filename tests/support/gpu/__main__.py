"""`python -m support.gpu` (`make gpu-check`): everything about GPUs that tests on a CPU can't show, on one page.

Each step prints a line; a JSON file has all that was measured. Exit status 0: every step did; or there is no GPU.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import torch

from support.gpu import correctness, runs, speed
from support.gpu.steps import Setting, Step, run_step

STEPS: dict[str, Step] = {
    "build": correctness.build,
    "ops": correctness.op_grid,
    "golden": correctness.golden_networks,
    "train": runs.variants,
    "resume": runs.resume,
    "processes": runs.processes,
    "op-times": speed.op_times,
    "sampling": speed.sampling,
    "presets": speed.preset_speed,
}


def card(device: torch.device) -> str:
    """The name of the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def lines(result: dict[str, Any]) -> list[str]:
    """A step's part of the page."""
    head = f"{'ok    ' if result['ok'] else 'FAILED'}  {result['name']:10s} {result['seconds']:7.1f} s"
    if not result["ok"]:
        return [f"{head}  {result['error']}"]
    rows = [f"            {key}: {_short(value)}" for key, value in result["measured"].items()]
    return [head, *rows]


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(item)}" for key, item in value.items() if key != "run")
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(STEPS)))
@click.option("--device", default="cuda", help="Where to run: cuda, or cpu to try the check itself")
@click.option("--small", is_flag=True, help="Every step at a tiny size")
@click.option("--out", default="out/gpu-check.json", help="The JSON file")
def main(names: tuple[str, ...], device: str, small: bool, out: str) -> None:
    """Runs the steps NAMES, all by default."""
    if device == "cuda" and not torch.cuda.is_available():
        click.echo(f"gpu-check: skipped, torch {torch.__version__} sees no GPU")
        return
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    results = []
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as work:
        setting = Setting(torch.device(device), small, Path(work))
        click.echo(f"gpu-check on {card(setting.device)}, torch {torch.__version__}{', small' if small else ''}")
        for name in names or STEPS:
            results.append(run_step(name, STEPS[name], setting))
            click.echo("\n".join(lines(results[-1])))
    content = {"card": card(setting.device), "torch": torch.__version__, "small": small, "steps": results}
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(json.dumps(content, indent=2) + "\n")
    failed = [result["name"] for result in results if not result["ok"]]
    click.echo(f"failed: {', '.join(failed)}" if failed else "all steps did")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
