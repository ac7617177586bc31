"""Measures training: `python benchmarks/training_speed.py [a] [b] [--cycles=1]`.

Seconds per kimg, split by phase, beside the floor: the floating-point operations of the phase (counted by
torch.utils.flop_counter) at the rate of this machine's matrix products, measured in the same run. A cycle is 16
batches, the interval of R1, so that every phase is weighed as in training. ADA is on, at --p. Close other programs.

(a) --cfg=cifar --g_dict=256,64,16 --num_layers=1,2,2: nearly all work is in the 512-channel discriminator.
    Goal: at least 88 % of the floor's rate.
(b) --g_dict=256,128,64 --num_layers=1,2,2 with D channel_base 2048, channel_max 128. Goal: at most 60 s/kimg.

A preset's name measures that preset (for 32x32 images). `--vary=precision=bfloat16` measures all of it once more with
another setting, in turns with the first, and gives the ratio: `training_speed.py a b demo --vary=precision=bfloat16`.
"""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import click
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.operations import counted_operations  # noqa: E402
from dnnlib.config import set_field  # noqa: E402
from torch_utils import devices  # noqa: E402
from training.config import TrainingConfig  # noqa: E402
from training.dataset import open_dataset  # noqa: E402
from training.networks.generators.styleformer import StyleformerConfig  # noqa: E402
from training.objectives.base import PhaseSpec  # noqa: E402
from training.options import resolve  # noqa: E402
from training.presets import PRESETS  # noqa: E402
from training.training_loop import Trainer  # noqa: E402

DATA = ROOT / "datasets" / "noto-emoji-32.zip"  # 32x32 like CIFAR-10; training doesn't care which pictures
CYCLE = 16
GOALS = {"a": "at least 88 % of the floor's rate", "b": "at most 60 s/kimg"}


def config(name: str, p: float, settings: Sequence[str] = ()) -> TrainingConfig:
    """The configuration called `name` above, or the preset."""
    if name not in GOALS:
        cfg, _ = resolve(name, 1, {"data": str(DATA)}, settings)
        return cfg
    cfg = PRESETS["cifar"].build(32, 1)
    cfg.data.path, cfg.metrics, cfg.ada.p = str(DATA), [], p
    widths = [256, 64, 16] if name == "a" else [256, 128, 64]
    cfg.G = StyleformerConfig(mapping_layers=2, g_dict=widths, num_layers=[1, 2, 2], depth=32)
    cfg.D.mbstd_group_size = 4  # as --batch=32 sets it
    if name == "b":
        cfg.D.channel_base, cfg.D.channel_max = 2048, 128
    for network in (cfg.G, cfg.D):
        network.img_resolution = (32, 32)
    for setting in settings:
        set_field(cfg, setting)
    return cfg


@dataclass
class Meter:
    """Seconds and operations by phase; `rest` is what a step does besides its phases."""

    seconds: Counter = field(default_factory=Counter)
    operations: Counter = field(default_factory=Counter)
    counts: bool = False  # count operations instead of measuring time

    def phase(self, trainer: Trainer, index: int, phase: PhaseSpec) -> None:
        """What a step calls in place of Trainer._run_phase."""
        if self.counts:
            with counted_operations() as count:
                Trainer._run_phase(trainer, index, phase)
            self.operations[phase.name] += count.total
            return
        start = time.perf_counter()
        Trainer._run_phase(trainer, index, phase)
        self.seconds[phase.name] += time.perf_counter() - start


def matmul_rate(seconds: float = 1.0) -> float:
    """Floating-point operations per second of a 2048^3 float32 matrix product: the median over `seconds`."""
    n = 2048
    a, b, out = (torch.randn(n, n) for _ in range(3))
    times: list[float] = []
    torch.mm(a, b, out=out)
    while sum(times) < seconds or len(times) < 3:
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        times.append(time.perf_counter() - start)
    return 2 * n**3 / median(times)


def metered(cfg: TrainingConfig, meter: Meter) -> Trainer:
    """A trainer whose phases `meter` measures."""
    trainer = Trainer(cfg, open_dataset(DATA), torch.device("cpu"))
    trainer._run_phase = lambda index, phase: meter.phase(trainer, index, phase)  # type: ignore[method-assign]
    return trainer


def measure(name: str, cfg: TrainingConfig, cycles: int) -> None:
    meter = Meter(counts=True)
    metered(replace(cfg, compile=False), meter).step()  # the first step has every phase
    meter.counts = False
    trainer = metered(cfg, meter)
    trainer.step()  # warms up, and compiles if asked to
    trainer.step_count = 0
    meter.seconds.clear()
    rates, elapsed = [matmul_rate()], 0.0
    for _ in range(cycles):
        start = time.perf_counter()
        for _ in range(CYCLE):
            trainer.step()
        elapsed += time.perf_counter() - start
        rates.append(matmul_rate())
    report(name, trainer, meter, elapsed, cycles, median(rates))


def report(name: str, trainer: Trainer, meter: Meter, elapsed: float, cycles: int, rate: float) -> None:
    images = cycles * CYCLE * trainer.cfg.batch
    per_kimg = 1000 / images
    click.echo(f"({name}) {cycles} cycle(s) of {CYCLE} batches of {trainer.cfg.batch}, p = {trainer.cfg.ada.p}, ")
    click.echo(f"    {torch.get_num_threads()} threads, matrix products {rate / 1e9:.1f} GFLOP/s")
    click.echo(f"    {'phase':8} {'s/kimg':>8} {'GFLOP/img':>10} {'floor s':>8} {'of rate':>8}")
    total = 0.0
    for phase in trainer.phases:
        work = meter.operations[phase.name] / trainer.cfg.batch / phase.interval  # of an average image
        floor = work * 1000 / rate
        total += work
        seconds = meter.seconds[phase.name] * per_kimg
        click.echo(f"    {phase.name:8} {seconds:8.2f} {work / 1e9:10.3f} {floor:8.2f} {floor / seconds:8.1%}")
    rest = (elapsed - sum(meter.seconds.values())) * per_kimg
    floor = total * 1000 / rate
    click.echo(f"    {'rest':8} {rest:8.2f}   (means, averaged weights, augmentation control)")
    whole = elapsed * per_kimg
    line = f"    {'all':8} {whole:8.2f} {total / 1e9:10.3f} {floor:8.2f} {floor / whole:8.1%}"
    click.echo(f"{line}   goal: {GOALS.get(name, 'none')}")


def compare(name: str, variants: Sequence[TrainingConfig], labels: Sequence[str], cycles: int) -> None:
    """Seconds per kimg of every variant, a cycle of each in turn, and how many times as fast as the first it is."""
    trainers = [Trainer(cfg, open_dataset(DATA), torch.device("cpu")) for cfg in variants]
    times: list[list[float]] = [[] for _ in trainers]
    for trainer in trainers:
        trainer.step()
    for _ in range(cycles):
        for trainer, found in zip(trainers, times):
            trainer.step_count = 0
            start = time.perf_counter()
            for _ in range(CYCLE):
                trainer.step()
            found.append((time.perf_counter() - start) * 1000 / (CYCLE * trainer.cfg.batch))
    for label, found in zip(labels, times):
        seconds, ratio = median(found), median(times[0]) / median(found)
        click.echo(f"{name:12} {label:40} {seconds:8.2f} s/kimg ({min(found):.2f}-{max(found):.2f}) {ratio:6.2f}x")


@click.command(help=__doc__)
@click.argument("names", nargs=-1)
@click.option("--cycles", default=1, show_default=True, help="Whole cycles of 16 batches")
@click.option("--p", default=0.2, show_default=True, help="Augmentation probability")
@click.option("--profile", is_flag=True, help="Then show which operations the time goes to")
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Another setting of the run")
@click.option("--vary", multiple=True, metavar="FIELD=VALUE[,...]", help="Compare with these settings")
def main(
    names: tuple[str, ...], cycles: int, p: float, profile: bool, settings: tuple[str, ...], vary: tuple[str, ...]
) -> None:
    devices.keep_large_blocks()  # as the commands do
    for name in names or tuple(GOALS):
        cfg = config(name, p, settings)
        if vary:
            variants = [config(name, p, [*settings, *(v.split(",") if v else [])]) for v in ("", *vary)]
            compare(name, variants, ["as it is", *vary], cycles)
            continue
        measure(name, cfg, cycles)
        if profile:
            show_profile(cfg)


def show_profile(cfg: TrainingConfig) -> None:
    """Self time of the costliest operations over 4 batches (R1 in the first)."""
    trainer = Trainer(cfg, open_dataset(DATA), torch.device("cpu"))
    trainer.step()
    trainer.step_count = 0
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        for _ in range(4):
            trainer.step()
    table = found.key_averages().table(sort_by="self_cpu_time_total", row_limit=18, max_name_column_width=48)
    click.echo("\n".join(line[:125] for line in table.splitlines()))


if __name__ == "__main__":
    main()
