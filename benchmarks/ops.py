"""Measures the compiled ops against the best plain PyTorch forms: `python benchmarks/ops.py [names]`.

Every line is measured in one run: ours and the rival in turns, medians with the interquartile range, and the ratio.
The goals are those of docs/ops.md. Uses all cores; close other programs.
"""

import ctypes
import functools
import gc
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import click
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent.parent))

from torch_utils.devices import keep_large_blocks
from torch_utils.ops.attention import attention
from torch_utils.ops.attention.public import can_run
from torch_utils.ops.bias_act import bias_act
from torch_utils.ops.build import library
from torch_utils.ops.neighborhood_attention import na2d
from torch_utils.ops.upfirdn2d import setup_filter, upfirdn2d

Step = Callable[[], Any]


# --- Rivals ----------------------------------------------------------------------------------------------------------


def tiled_sdpa(q, k, v, kernel_size, dilation):
    """Neighbourhood attention as masked attention of 8x8 query tiles with their key halo, dilation groups as batch.

    Needs sides that are multiples of 8 * dilation.
    """
    n, height, width, heads, channels = q.shape
    tile, halo = 8, 8 + kernel_size - 1
    d = dilation

    def groups(x):  # [N, H, W, heads, D] -> [N*d*d, heads, H/d, W/d, D]
        x = x.reshape(n, height // d, d, width // d, d, heads, channels).permute(0, 2, 4, 5, 1, 3, 6)
        return x.reshape(n * d * d, heads, height // d, width // d, channels)

    def tiles_of(members):  # first key of each tile, and [tiles, 8, halo] whether query sees key
        count = members // tile
        start = (
            (torch.arange(count) * tile - kernel_size // 2).clamp(0, members - halo)
            if members >= halo
            else torch.zeros(1, dtype=torch.long)
        )
        span = min(halo, members)
        query = torch.arange(members).reshape(count, tile)
        first = (query - kernel_size // 2).clamp(0, members - kernel_size)
        key = start[:, None] + torch.arange(span)
        seen = (key[:, None] >= first[..., None]) & (key[:, None] < first[..., None] + kernel_size)
        return key, seen

    h, w = height // d, width // d
    (key_y, seen_y), (key_x, seen_x) = tiles_of(h), tiles_of(w)
    ty, tx = len(key_y), len(key_x)
    mask = seen_y[:, None, :, None, :, None] & seen_x[None, :, None, :, None, :]
    mask = mask.reshape(ty, tx, 1, tile * tile, -1)
    q, k, v = groups(q), groups(k), groups(v)
    b = q.shape[0]
    q = (
        q.reshape(b, heads, ty, tile, tx, tile, channels)
        .permute(0, 2, 4, 1, 3, 5, 6)
        .reshape(b, ty, tx, heads, tile * tile, channels)
    )
    k, v = (
        x[:, :, key_y][:, :, :, :, key_x].permute(0, 2, 4, 1, 3, 5, 6).reshape(b, ty, tx, heads, -1, channels)
        for x in (k, v)
    )
    bias = torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))[None].expand(b, -1, -1, heads, -1, -1)
    out = F.scaled_dot_product_attention(
        q.flatten(0, 2), k.flatten(0, 2), v.flatten(0, 2), attn_mask=bias.flatten(0, 2)
    )
    out = (
        out.reshape(b, ty, tx, heads, tile, tile, channels)
        .permute(0, 3, 1, 4, 2, 5, 6)
        .reshape(n, d, d, heads, h, w, channels)
    )
    return out.permute(0, 4, 1, 5, 2, 3, 6).reshape(n, height, width, heads, channels)


def zero_insert_upfirdn(x, f, up, down, pad, gain):
    """Zero insertion, padding and a grouped convolution: the CPU path of the original programs."""
    n, c, h, w = x.shape
    x = F.pad(x.reshape(n, c, h, 1, w, 1), [0, up - 1, 0, 0, 0, up - 1]).reshape(n, c, h * up, w * up)
    x = F.pad(x, pad)
    weight = (f * gain).flip([0, 1])[None, None].expand(c, 1, -1, -1)
    return F.conv2d(x, weight, groups=c)[:, :, ::down, ::down]


def plain_bias_act(x, b):
    """bias, leaky ReLU, gain and clamp as four PyTorch calls."""
    return (F.leaky_relu(x + b[:, None, None], 0.2) * 2**0.5).clamp(-256, 256)


# --- Measuring -------------------------------------------------------------------------------------------------------


def timed(steps: list[Step], seconds: float = 3.0, least: int = 7) -> list[list[float]]:
    """Milliseconds of every step, run in turns until the time is up."""
    for step in steps:
        step()
    times: list[list[float]] = [[] for _ in steps]
    end = time.perf_counter() + seconds * len(steps)
    while len(times[0]) < least or (time.perf_counter() < end and len(times[0]) < 200):
        for step, results in zip(steps, times):
            started = time.perf_counter()
            step()
            results.append((time.perf_counter() - started) * 1e3)
    return times


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def extra_memory(step: Step) -> float:
    """Most MB that a step holds beyond what was held before it, its result included."""
    step()  # what only the first run needs
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before, most, done = resident(), 0, threading.Event()

    def watch():
        nonlocal most
        while not done.is_set():
            most = max(most, resident())
            time.sleep(0.0002)

    thread = threading.Thread(target=watch)
    thread.start()
    result = step()
    most = max(most, resident())
    done.set()
    thread.join()
    del result
    return (most - before) / 1e6


def spread(times: list[float]) -> str:
    low, _, high = quantiles(times, n=4)
    return f"{median(times):8.2f} ms ({low:.2f}-{high:.2f})"


def verdict(reached: bool) -> str:
    return "ok" if reached else "MISSED"


def report(name: str, ours: list[float], rival: list[float], goal: float) -> None:
    ratio = median(rival) / median(ours)
    result = f"{ratio:6.1f}x  goal {goal:g}x  {verdict(ratio >= goal)}"
    click.echo(f"{name:42} {spread(ours):30} rival {spread(rival):32} {result}")


def with_backward(function: Callable[..., torch.Tensor], inputs: list[torch.Tensor]) -> Step:
    grad = torch.randn_like(function(*inputs).detach())
    leaves = [t.detach().requires_grad_() for t in inputs]
    return lambda: torch.autograd.grad(function(*leaves), leaves, grad)


def compare(name: str, ours: Callable, rival: Callable, inputs: list[torch.Tensor], goals: tuple[float, float]) -> None:
    error = float((ours(*inputs) - rival(*inputs)).abs().max())
    if error > 1e-3:
        raise click.ClickException(f"{name}: the two sides differ by {error:g}")
    with torch.no_grad():
        report(name + " forward", *timed([lambda: ours(*inputs), lambda: rival(*inputs)]), goals[0])
    report(name + " forward+backward", *timed([with_backward(ours, inputs), with_backward(rival, inputs)]), goals[1])


# --- The table -------------------------------------------------------------------------------------------------------


NA2D_CASES = [(64, 1), (64, 4), (128, 1), (128, 4)]  # side, dilation


def bench_na2d() -> None:
    for side, dilation in NA2D_CASES:
        inputs = [torch.randn(1, side, side, 4, 32) for _ in range(3)]
        name = f"na2d {side}x{side} K 7 d {dilation}"

        def ours(q, k, v, dilation=dilation):
            return na2d(q, k, v, 7, dilation)

        def rival(q, k, v, dilation=dilation):
            return tiled_sdpa(q, k, v, 7, dilation)

        compare(name, ours, rival, inputs, (5, 4))


def bench_memory() -> None:
    """Extra memory of na2d with its backward pass. Last of all, for it makes allocations slow."""
    mmap_threshold = -3
    ctypes.CDLL(None).mallopt(mmap_threshold, 1 << 16)  # freed memory goes back: what is held is what is in use
    for side, dilation in NA2D_CASES:
        inputs = [torch.randn(1, side, side, 4, 32) for _ in range(3)]
        steps = [
            with_backward(functools.partial(f, kernel_size=7, dilation=dilation), inputs) for f in (na2d, tiled_sdpa)
        ]
        ours, rival = (extra_memory(step) for step in steps)
        sizes = f"{ours:8.1f} MB   rival {rival:8.1f} MB   goal 1/4 of it  {verdict(ours <= rival / 4)}"
        click.echo(f"{f'na2d {side}x{side} K 7 d {dilation} extra memory':42} {sizes}")


def bench_na2d_growth() -> None:
    steps: list[Step] = []
    for side in (64, 256):
        inputs = [torch.randn(1, side, side, 4, 32) for _ in range(3)]
        steps.append(lambda inputs=inputs: na2d(*inputs, 7))
        steps.append(with_backward(lambda q, k, v: na2d(q, k, v, 7), inputs))
    with torch.no_grad():
        forward = timed([steps[0], steps[2]])
    backward = timed([steps[1], steps[3]])
    for name, (small, large) in (("forward", forward), ("forward+backward", backward)):
        growth = median(large) / median(small)
        times = f"{median(small):8.2f} -> {median(large):8.2f} ms"
        result = f"{growth:.1f}x  goal 16 +- 15 %  {verdict(growth <= 16 * 1.15)}"
        click.echo(f"na2d 64^2 -> 256^2 {name:24} {times}  {result}")


def bench_natten() -> None:
    """The PyPI package natten, whose only CPU path is the forward pass of flex_attention."""
    try:
        from natten.functional import na2d as natten_na2d
    except ImportError:
        click.echo("natten: not installed (pip install --no-deps --no-build-isolation natten==0.21.7)")
        return
    warnings.filterwarnings("ignore", module="torch.nn.attention")  # says at every start that it is slow
    inputs = [torch.randn(1, 64, 64, 4, 32) for _ in range(3)]
    steps: list[Step] = [lambda: na2d(*inputs, 7), lambda: natten_na2d(*inputs, kernel_size=7)]
    error = float((steps[0]() - steps[1]()).abs().max())
    if error > 1e-3:
        raise click.ClickException(f"natten: the two sides differ by {error:g}")
    with torch.no_grad():
        report("na2d 64x64 K 7 d 1 forward, natten", *timed(steps), 300)


def bench_attention() -> None:
    """bfloat16, where our backward pass takes it; the sizes of Styleformer (b) (benchmarks/training_speed.py)."""
    for heads, queries, keys in ((8, 64, 64), (4, 256, 256), (2, 1024, 1024), (2, 1024, 256)):
        lengths = (queries, keys, keys)
        inputs = [torch.randn(32, length, heads, 32).bfloat16().transpose(1, 2) for length in lengths]
        if not can_run(*inputs):
            click.echo("attention: this processor has no bfloat16 products, so torch's own backward pass runs")
            return
        steps = [with_backward(f, inputs) for f in (attention, F.scaled_dot_product_attention)]
        report(f"attention {queries}x{keys}, {heads} heads forward+backward", *timed(steps), 1.5)


def copy_time(x: torch.Tensor, y: torch.Tensor) -> float:
    """Milliseconds that reading x and writing y take at the rate of a copy: no kernel can be faster."""
    source = torch.randn((x.numel() + y.numel()) // 2)
    target = torch.empty_like(source)
    return median(timed([lambda: target.copy_(source)], seconds=1)[0])


def bench_upfirdn2d() -> None:
    for layout, name in ((torch.contiguous_format, ""), (torch.channels_last, ", channels last")):
        upfirdn2d_in(torch.randn(8, 128, 64, 64).to(memory_format=layout), name)


def upfirdn2d_in(x: torch.Tensor, layout: str) -> None:
    f = setup_filter([1, 3, 3, 1])
    for name, up, down, pad, gain, goals in [
        ("upfirdn2d up 2", 2, 1, [2, 1, 2, 1], 4.0, (15, 10)),
        ("upfirdn2d down 2", 1, 2, [1, 1, 1, 1], 1.0, (6, 5)),
    ]:

        def ours(x, up=up, down=down, pad=pad, gain=gain):
            return upfirdn2d(x, f, up, down, pad, gain=gain)

        def rival(x, up=up, down=down, pad=pad, gain=gain):
            return zero_insert_upfirdn(x, f, up, down, pad, gain)

        compare(name + layout, ours, rival, [x], goals)
        click.echo(f"{'    a copy of as many bytes':42} {copy_time(x, ours(x)):8.2f} ms")


def bench_bias_act() -> None:
    def ours(x, b):
        return bias_act(x, b, act="lrelu", clamp=256)

    compare("bias_act lrelu + clamp", ours, plain_bias_act, [torch.randn(8, 128, 64, 64), torch.randn(128)], (1.8, 2.5))


BENCHMARKS = {
    "na2d": bench_na2d,
    "growth": bench_na2d_growth,
    "natten": bench_natten,
    "attention": bench_attention,
    "upfirdn2d": bench_upfirdn2d,
    "bias_act": bench_bias_act,
    "memory": bench_memory,
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(BENCHMARKS)))
def main(names: tuple[str, ...]) -> None:
    """Runs the benchmarks NAMES (all by default) and prints one line for each."""
    torch.manual_seed(0)
    keep_large_blocks()  # as the commands do
    status = library.ensure("cpu")
    isa = torch.ops.styleloom.cpu_isa() if status.loaded else f"none: {status.reason}"
    click.echo(f"torch {torch.__version__}, {torch.get_num_threads()} threads, kernels {isa}")
    for name in names or BENCHMARKS:
        BENCHMARKS[name]()


if __name__ == "__main__":
    main()
