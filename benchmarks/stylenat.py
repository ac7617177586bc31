"""StyleNAT at real sizes on this machine.

    python benchmarks/stylenat.py generator     FFHQ-256, batch 1: compiled against gather-based attention
    python benchmarks/stylenat.py step          one training step of `ffhq256`, all phases, batch 2
    python benchmarks/stylenat.py throughput    images per second of `demo_nat`

Every measurement runs in a process of its own, so that peak memory is its own. Uses all cores; close other programs.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import click
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from dnnlib.config import set_field
from torch_utils import ops
from training import networks
from training.config import TrainingConfig
from training.dataset import open_dataset
from training.networks.generators.stylenat import StyleNATConfig
from training.presets import PRESETS
from training.training_loop import Trainer

SIDE = 256
MIB = 2**20


class NoiseImages:
    """A data set of 64 random images: what they show doesn't change how long a step takes."""

    name, label_dim, image_shape = "noise", 0, (3, SIDE, SIDE)

    def __len__(self) -> int:
        return 64

    def load(self, indices) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.randint(256, [len(indices), *self.image_shape], dtype=torch.uint8)
        return images, torch.zeros(len(indices), 0)


def resident(field: str) -> float:
    """VmRSS (now) or VmHWM (peak) of this process in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


@click.group()
def main() -> None:
    """Benchmarks of StyleNAT."""


@main.command()
@click.option("--runs", default=3, help="Timed runs after one to warm up")
def generator(runs: int) -> None:
    """Time and peak memory of one FFHQ-256 image, by form of attention."""
    forms = {form: in_a_process("run-generator", form, str(runs)) for form in ("auto", "ref")}
    for form, label in (("auto", "compiled"), ("ref", "gather")):
        r = forms[form]
        size = f"{r['above_weights']:6.0f} MiB above the weights ({r['weights']:.0f} MiB)"
        click.echo(f"{label:9s} {r['seconds']:6.2f} s, {size}")
    ours, theirs = forms["auto"], forms["ref"]
    click.echo(f"time: {theirs['seconds'] / ours['seconds']:.1f}x faster (goal 5x)")
    click.echo(f"memory above the weights: {ours['above_weights'] / theirs['above_weights']:.2f} of it (goal 0.33)")
    difference = max(abs(a - b) for a, b in zip(ours["pixels"], theirs["pixels"]))
    click.echo(f"largest difference of a pixel: {difference:.1e}")


@main.command()
@click.option("--batch", default=2, help="Images")
@click.option("--checkpoint", is_flag=True, help="Recompute the generator's layers in the backward pass")
@click.option("--path-length", is_flag=True, help="A path length phase besides, on one image")
def step(batch: int, checkpoint: bool, path_length: bool) -> None:
    """One step of the ffhq256 recipe: Gmain, Dmain with bCR, Dreg (R1)."""
    for line in in_a_process("run-step", str(batch), str(int(checkpoint)), str(int(path_length)))["lines"]:
        click.echo(line)


@main.command()
@click.option("--seconds", default=60.0, help="How long to train")
@click.option("--set", "settings", multiple=True, help="Config fields, e.g. G.channels=[64,64,64,32]")
def throughput(seconds: float, settings: tuple[str, ...]) -> None:
    """Images per second that `demo_nat` trains on."""
    cfg = PRESETS["demo_nat"].build(32, 1)
    for s in settings:
        set_field(cfg, s)
    cfg.metrics = []
    cfg.data.path = str(Path(__file__).parent.parent / "datasets/noto-emoji-32.zip")
    trainer = Trainer(cfg, open_dataset(cfg.data.path), torch.device("cpu"))
    trainer.step()
    first, start = trainer.nimg, time.perf_counter()
    while time.perf_counter() - start < seconds:
        trainer.step()
    rate = (trainer.nimg - first) / (time.perf_counter() - start)
    click.echo(f"{rate:.1f} images/s, {rate * 900 / 1000:.0f} kimg in 15 minutes")


# -- what runs in processes of their own ------------------------------------------------------------------------------


def in_a_process(*arguments: str) -> dict:
    """Runs a command of this file in a new process; its last line is JSON."""
    result = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


@main.command(hidden=True)
@click.argument("form")
@click.argument("runs", type=int)
def run_generator(form: str, runs: int) -> None:
    torch.manual_seed(0)
    G = networks.build(StyleNATConfig(img_resolution=(SIDE, SIDE))).eval().requires_grad_(False)
    weights = sum(p.numel() * p.element_size() for p in G.parameters()) / MIB
    z = torch.randn(1, 512)
    before, times = resident("VmRSS"), []
    with ops.use(form), torch.no_grad():
        for _ in range(runs + 1):
            start = time.perf_counter()
            image = G(z)
            times.append(time.perf_counter() - start)
    click.echo(
        json.dumps(
            {
                "seconds": sorted(times[1:])[runs // 2],
                "above_weights": resident("VmHWM") - before,
                "weights": weights,
                "pixels": image.flatten()[::97].tolist(),
            }
        )
    )


@main.command(hidden=True)
@click.argument("batch", type=int)
@click.argument("checkpoint", type=int)
@click.argument("path_length", type=int)
def run_step(batch: int, checkpoint: int, path_length: int) -> None:
    cfg: TrainingConfig = PRESETS["ffhq256"].build(SIDE, 1)
    cfg.batch, cfg.metrics = batch, []
    cfg.G.checkpoint = bool(checkpoint)  # type: ignore[attr-defined]
    if path_length:
        cfg.loss.pl_weight, cfg.loss.pl_interval, cfg.loss.pl_batch_shrink = 2.0, 4, batch
    cfg.G.img_resolution = cfg.D.img_resolution = (SIDE, SIDE)
    trainer = Trainer(cfg, NoiseImages(), torch.device("cpu"))
    lines = [f"G {count(trainer.G):,} parameters, D {count(trainer.D):,}; {resident('VmRSS'):.0f} MiB before the step"]
    for index, phase in enumerate(trainer.phases):
        start = time.perf_counter()
        trainer._run_phase(index, phase)
        lines.append(f"{phase.name:6s} {time.perf_counter() - start:6.1f} s, peak so far {resident('VmHWM'):6.0f} MiB")
    stats = trainer.stats.take()
    bad = [name for name, s in stats.items() if s["mean"] != s["mean"]]
    losses = [f"{name} {s['mean']:.3g}" for name, s in stats.items() if "/loss" in name or "penalty" in name]
    lines.append(f"losses: {', '.join(losses)}")
    lines.append(f"not finite: {', '.join(bad) or 'nothing'}; {trainer.bad_gradients} bad gradient values")
    click.echo(json.dumps({"lines": lines}))


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


if __name__ == "__main__":
    main()
