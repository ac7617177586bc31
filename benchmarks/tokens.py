"""How GAT's cost grows with its tokens: `python benchmarks/tokens.py [--cfg=gat_s2] [--set FIELD=VALUE]`.

One training step of the preset, on random pictures, at sides that give 64, 256 and 1024 tokens: seconds, peak memory of
the process above its start (on a GPU: allocated at most), and what the operations alone would need, counted by
benchmarks/operations.py. Every size runs in a process of its own. `--precision` and `--checkpoint` show what they save.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import click
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.operations import counted_operations
from dnnlib.cli import INTS, Command
from dnnlib.config import set_field
from dnnlib.errors import UserError
from training.config import TrainingConfig
from training.options import check_config
from training.presets import PRESETS
from training.training_loop import Trainer

MIB = 2**20


class NoisePictures:
    """A data set of random images: what they show doesn't change how long a step takes."""

    label_dim = 0

    def __init__(self, side: int):
        self.image_shape = (3, side, side)

    def __len__(self) -> int:
        return 64

    def load(self, indices) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.randint(256, [len(indices), *self.image_shape], dtype=torch.uint8)
        return images, torch.zeros(len(indices), 0)


def config(tokens: int, preset: str, batch: int, settings: tuple[str, ...]) -> TrainingConfig:
    """The preset for square pictures of so many tokens. UserError where there are none."""
    cfg = PRESETS[preset].build(32, 1)
    cfg.batch, cfg.batch_gpu = batch, None
    for setting in settings:
        set_field(cfg, setting)
    if not hasattr(cfg.G, "patch"):
        raise UserError(f"--cfg={preset}: its generator {cfg.G.kind} has no patches; take a GAT preset")
    rows = round(tokens**0.5)
    if rows * rows != tokens:
        raise UserError(f"--tokens={tokens}: square pictures have 64, 256, 1024, ... tokens")
    side = rows * cfg.G.patch  # type: ignore[attr-defined]
    for network in (cfg.G, cfg.D):
        network.img_resolution, network.img_channels = (side, side), 3
    check_config(cfg)
    return cfg


def resident(field: str) -> float:
    """VmRSS (now) or VmHWM (peak) of this process in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def measure(cfg: TrainingConfig, runs: int) -> dict:
    """Median seconds of a step, MiB that it takes at most above the networks, operations per image."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = Trainer(cfg, NoisePictures(cfg.G.img_resolution[0]), device)  # type: ignore[arg-type]
    on_gpu = device.type == "cuda"
    before = torch.cuda.memory_allocated() / MIB if on_gpu else resident("VmRSS")
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        trainer.step()
        if on_gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() / MIB if on_gpu else resident("VmHWM")
    with counted_operations() as count:
        trainer.step()
    seconds = sorted(times[1:])[runs // 2]
    return {"seconds": seconds, "memory": peak - before, "operations": count.total / cfg.batch}


@click.command(cls=Command)
@click.option("--cfg", "preset", default="gat_s2", show_default=True, help="A GAT preset")
@click.option("--tokens", type=INTS, default="64,256,1024", show_default=True, help="Tokens of a picture")
@click.option("--batch", default=4, show_default=True, help="Images of a step")
@click.option("--runs", default=3, show_default=True, help="Timed steps after one to warm up")
@click.option("--precision", default="float32", show_default=True, help="As train.py's")
@click.option("--checkpoint", is_flag=True, help="Compute blocks again in the backward pass")
@click.option("--set", "settings", multiple=True, help="Config fields, e.g. G.depth=4")
@click.option("--one", is_flag=True, hidden=True)
def main(
    preset: str, tokens: list[int], batch: int, runs: int, precision: str, checkpoint: bool, settings: tuple[str, ...],
    one: bool,
) -> None:  # fmt: skip
    """Print the cost of a step by the number of tokens."""
    said = [*settings, f"precision={precision}"]
    said += ["G.checkpoint=true", "D.checkpoint=true"] if checkpoint else []
    if one:
        click.echo(json.dumps(measure(config(tokens[0], preset, batch, tuple(said)), runs)))
        return
    for count in tokens:  # all are checked before the first is measured
        config(count, preset, batch, tuple(said))
    click.echo(f"{preset}, batch {batch}, {precision}{', checkpoint' if checkpoint else ''}")
    click.echo(
        f"{'tokens':>6}  {'ms/image':>9}  {'growth':>6}  {'MiB':>7}  {'growth':>6}  {'GFLOP/image':>11}  {'growth':>6}"
    )
    before: dict | None = None
    for count in tokens:
        command = [sys.executable, __file__, "--one", f"--tokens={count}", f"--cfg={preset}", f"--batch={batch}"]
        command += [f"--runs={runs}", f"--precision={precision}", *(["--checkpoint"] if checkpoint else [])]
        command += [f"--set={setting}" for setting in settings]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        row["seconds"] /= batch
        growth = {key: f"{row[key] / before[key]:.2f}" if before else "" for key in row}
        click.echo(
            f"{count:6d}  {row['seconds'] * 1e3:9.1f}  {growth['seconds']:>6}  {row['memory']:7.0f}  "
            f"{growth['memory']:>6}  {row['operations'] / 1e9:11.2f}  {growth['operations']:>6}"
        )
        before = row


if __name__ == "__main__":
    main()
