"""Do two checkouts train the same, bit for bit? `python tests/support/scripts/compare_checkouts.py OTHER [THIS]`.

Trains each recipe for 20 steps in both through train.py, hashes what training-state.pt holds of networks and
optimisers, and lets this checkout continue runs that the other one began: for a change of structure that should change
no number. Exit status 0: all the same.
"""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

HERE = Path(__file__).parents[3]
STEPS = 20
_CIFAR = "--cfg=cifar --cond=1 --data={data} --batch=8 --g_dict=64,32,16 --set=D.channel_base=2048"
_AUTO = (
    "--cfg=auto --data={data} --batch=8 --set=G.channel_base=1024 --set=D.channel_base=1024 --set=loss.pl_interval=2"
)
RECIPES = {  # name -> (options, images per step)
    "demo": ("--cfg=demo", 8),
    "demo_nat": ("--cfg=demo_nat", 16),
    "cifar --cond": (_CIFAR, 8),
    "auto: path length, mixing, ADA": (f"{_AUTO} --set=loss.r1_interval=4 --set=ada.speed_kimg=1", 8),
    "bfloat16": (f"{_AUTO} --precision=bfloat16", 8),
}


def train(checkout: Path, outdir: Path, options: str, kimg: float) -> Path:
    """One run, or the continuation of one; its folder."""
    shared = ["--metrics=none", "--tick=1000", f"--outdir={outdir}", f"--kimg={kimg}"]
    data = checkout / "datasets" / "noto-emoji-32.zip"
    command = [sys.executable, "train.py", *options.format(data=data).split(), *shared]
    subprocess.run(command, cwd=checkout, check=True, stdout=subprocess.DEVNULL)
    return max(outdir.iterdir())


def digest(run: Path) -> str:
    """Of every tensor that training goes on from."""
    state = torch.load(run / "training-state.pt", weights_only=True)
    total = hashlib.sha256()

    def add(name: str, value: object) -> None:
        if isinstance(value, dict):
            for key in sorted(value, key=str):
                add(f"{name}.{key}", value[key])
        elif isinstance(value, torch.Tensor):
            total.update(name.encode() + value.contiguous().numpy().tobytes())

    add("modules", state["modules"])
    add("optimizers", state["optimizers"])
    return total.hexdigest()[:16]


def compare(other: Path, this: Path, work: Path) -> bool:
    """Prints a line per recipe; whether all agree."""
    same = True

    def report(name: str, a: str, b: str) -> None:
        nonlocal same
        same &= a == b
        print(f"{name:40s} {a} {b} {'same' if a == b else 'DIFFERENT'}", flush=True)

    for name, (options, batch) in RECIPES.items():
        folder, half, full = work / name.replace(" ", "_"), STEPS // 2 * batch / 1000, STEPS * batch / 1000
        runs = [train(c, folder / str(i), options, full) for i, c in enumerate((other, this))]
        report(name, *map(digest, runs))
        begun = train(other, folder / "begun", options, half)
        continued = train(this, folder / "begun", f"--resume={begun}", full)
        report(f"{name}: begun by the other", digest(runs[0]), digest(continued))
    options, batch = RECIPES["demo"]
    source = next((work / "demo" / "0").glob("*/network-snapshot-*.pkl"))
    for name, more in {"transfer": f"--resume={source}", "two processes": "--gpus=2"}.items():
        runs = [
            train(c, work / name / str(i), f"{options} {more}", STEPS * batch / 1000)
            for i, c in enumerate((other, this))
        ]
        report(name, *map(digest, runs))
    return same


if __name__ == "__main__":
    others = [Path(argument).resolve() for argument in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(0 if compare(others[0], others[1] if len(others) > 1 else HERE, Path(folder)) else 1)
