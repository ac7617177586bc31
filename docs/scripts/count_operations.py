"""Counts the floating-point operations of the recipes: `python docs/scripts/count_operations.py [PRESET ...]`.

One pass of every phase runs on PyTorch's fake tensors, which have shapes only: benchmarks/operations.py counts, with
formulas for our own neighbourhood attention and resampling (as in docs/ops.md). Elementwise work, augmentation and
optimisers are not counted.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import register_flop_formula

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.operations import counted_operations
from torch_utils.ops.neighborhood_attention import registered
from torch_utils.training_stats import BatchMean, Collector
from training import networks
from training.augment.draw import NoAugmentation
from training.config import TrainingConfig
from training.objectives.base import MicroBatch, objective_class
from training.presets import PRESETS

IMAGES = 4  # of the micro-batch that is counted
ROWS = ("cifar", "stl10", "celeba", "church", "clevr", "cityscapes", "afhq512", "ffhq256", "ffhq1024", "church256")
REACHED = 0.4  # share of its nominal rate that a GPU is taken to reach
IN_LATENTS = ("gat_s2", "gat_b2", "gat_l2", "gat_xl2")


@dataclass(frozen=True)
class Operations:
    """Operations per image."""

    sample: float  # G alone, forwards
    train: float  # all phases, each by how often it runs
    total: float  # of the whole recipe


def count(name: str) -> Operations:
    """What a preset takes at the size that it was made for."""
    with FakeTensorMode():
        return _count(resolved(name))


def _count(cfg: TrainingConfig) -> Operations:
    G, D = networks.build(cfg.G), networks.build(cfg.D)
    objective = objective_class(cfg.loss)(cfg.loss, G, D, NoAugmentation(), Collector(), BatchMean())  # type: ignore
    labels = torch.zeros(IMAGES, cfg.G.c_dim)
    real = torch.zeros(IMAGES, cfg.G.img_channels, *cfg.G.img_resolution)
    batch = MicroBatch(labels, real, labels)
    players = {"G": G, "D": D}
    train = sum(
        _counted(_step, phase.loss, players[phase.player], batch, [G, D]) / phase.interval
        for phase in objective.phases()
    )
    with torch.no_grad():
        sample = _counted(G, torch.zeros(IMAGES, cfg.G.z_dim), labels)
    return Operations(sample, train, train * cfg.total_kimg * 1000)


def resolved(name: str) -> TrainingConfig:
    """A preset for the images that it was made for, on 8 GPUs."""
    preset = PRESETS[name]
    if name in IN_LATENTS:
        return _in_latents(preset.build(32, 8))
    assert preset.resolution is not None, f"{name} is for images of any size"
    cfg = preset.build(max(preset.resolution), 8)
    for network in (cfg.G, cfg.D):
        network.img_resolution = preset.resolution
    return cfg


def _in_latents(cfg: TrainingConfig) -> TrainingConfig:
    """GAT on ImageNet: 1,000 classes, 32x32 latents of 256x256 pictures, 60 passes over 1,281,167 of them."""
    cfg.total_kimg = 60 * 1281.167
    for network in (cfg.G, cfg.D):
        network.img_resolution, network.img_channels, network.c_dim = (32, 32), 4, 1000
    return cfg


def _step(phase: Callable, network: torch.nn.Module, batch: MicroBatch, both: list[torch.nn.Module]) -> None:
    for module in both:
        module.requires_grad_(module is network)
    phase(batch).backward()


def _counted(run: Callable, *args: Any) -> float:
    with counted_operations() as count:
        run(*args)
    return count.total / IMAGES


# -- our own ops ------------------------------------------------------------------------------------------------------


def _pairs(shape: torch.Size, partitions: list[int]) -> int:
    """Query-key products of one channel each, of q [N, H, W, heads, D] in all partitions."""
    n, height, width, _, channels = shape
    runs = registered.head_runs(partitions)
    return n * height * width * channels * sum(
        (run.heads.stop - run.heads.start) * run.kernel[0] * run.kernel[1] for run in runs
    )  # fmt: skip


def _na2d(q: torch.Size, k: Any, v: Any, rpb: Any, partitions: list[int], *_: Any, **__: Any) -> int:
    return 4 * _pairs(q, partitions)


def _na2d_backward(g: Any, q: torch.Size, k: Any, v: Any, rpb: Any, lse: Any, delta: Any, partitions: list[int],
                   *_: Any, **__: Any) -> int:  # fmt: skip
    return 14 * _pairs(q, partitions)


def _product(x: Any, y: torch.Size, window: list[int], **_: Any) -> int:
    n, height, width, heads, channels = y
    return 2 * n * height * width * heads * channels * window[0] * window[1]


def _upfirdn2d(x: Any, f: torch.Size, up: list[int], *_: Any, out_shape: torch.Size, **__: Any) -> int:
    taps = f[0] * f[-1]
    return 2 * out_shape.numel() * taps // (up[0] * up[1])


_ops = torch.ops.styleloom
register_flop_formula(_ops.na2d)(_na2d)
register_flop_formula(_ops.na2d_backward)(_na2d_backward)
register_flop_formula([_ops.na2d_qk, _ops.na2d_av, _ops.na2d_avt])(_product)
register_flop_formula(_ops.upfirdn2d)(_upfirdn2d)


def row(name: str) -> str:
    """A row of the table in docs/recipes.md."""
    found = count(name)
    return f"| `{name}` | {found.sample / 1e9:,.1f} | {found.train / 1e9:,.0f} | {found.total / 1e18:,.1f} |"


def hours(total: float, teraflops: float) -> float:
    """Computed, not measured: of 8 GPUs of such a nominal rate that reach REACHED of it."""
    return total / (8 * teraflops * 1e12 * REACHED) / 3600


def row_with_hours(name: str) -> str:
    """A row of the table in docs/recipes/gat.md: hours on A100 and on H100, in bfloat16."""
    total = count(name).total
    return f"{row(name)} {hours(total, 312):,.0f} | {hours(total, 989):,.0f} |"


@click.command()
@click.argument("presets", nargs=-1)
def main(presets: tuple[str, ...]) -> None:
    """Print the table rows of PRESETS, by default of all rows of the papers."""
    for name in presets or (*ROWS, *IN_LATENTS):
        click.echo(row_with_hours(name) if name in IN_LATENTS else row(name))


if __name__ == "__main__":
    main()
