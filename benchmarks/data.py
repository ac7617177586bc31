"""Measures the data set tool and reader: `python benchmarks/data.py [convert] [memory] [read]`.

convert: 10,000 PNGs 256x256 -> 64x64 with 2 workers against one process with Pillow alone; goal: >= 1.8 times as fast.
memory:  peak memory of all processes for 10,000 and 100,000 pictures; goal: within 10 % of each other.
read:    images/s of training's reader from its cache and when decoding, against Pillow and zipfile.

Ours and the rival take turns in one run; medians are printed. Close other programs.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from statistics import median

import click
import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from training.dataset import open_dataset  # noqa: E402

PILLOW_ALONE = """
import io, os, sys, zipfile
from PIL import Image
folder, dest, level = sys.argv[1], sys.argv[2], int(sys.argv[3])
with zipfile.ZipFile(dest, "w") as z:
    for i, name in enumerate(sorted(os.listdir(folder))):
        image = Image.open(os.path.join(folder, name)).convert("RGB").resize((64, 64), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        image.save(out, "png", compress_level=level)
        z.writestr(f"{i // 1000:05d}/img{i:08d}.png", out.getvalue())
"""
DISTINCT = 200  # pictures; the others are links to them
_PILLOW_DEFAULT_LEVEL = 6


def make_pictures(folder: Path, count: int, side: int) -> None:
    """`count` PNGs of photograph-like content: smooth shapes and a little noise."""
    folder.mkdir()
    random = np.random.RandomState(0)
    for i in range(min(count, DISTINCT)):
        coarse = Image.fromarray(random.randint(0, 256, (8, 8, 3), np.uint8)).resize(
            (side, side), Image.Resampling.BICUBIC
        )
        noisy = np.clip(np.asarray(coarse) + random.randint(-4, 5, (side, side, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{i:06d}.png")
    for i in range(DISTINCT, count):
        os.link(folder / f"{i % DISTINCT:06d}.png", folder / f"{i:06d}.png")


def tool(source: Path, dest: Path, *options: str) -> list[str]:
    """The command line of a conversion."""
    return [sys.executable, str(ROOT / "dataset_tool.py"), f"--source={source}", f"--dest={dest}", *options]


def cost(command: list[str]) -> tuple[float, float]:
    """Seconds of a process, start-up included, and processor seconds of it and its children."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def convert(work: Path, images: int, rounds: int) -> None:
    """Images per second of the tool and of Pillow alone."""
    source = work / "pictures"
    make_pictures(source, images, 256)
    rivals = {
        f"Pillow alone, its default compression ({_PILLOW_DEFAULT_LEVEL})": str(_PILLOW_DEFAULT_LEVEL),
        "Pillow alone, our compression (1)": "1",
    }
    size = ("--width=64", "--height=64")
    commands = {
        "dataset_tool.py, 2 workers": tool(source, work / "ours.zip", *size, "--num-workers=2"),
        "dataset_tool.py, 1 worker": tool(source, work / "ours.zip", *size, "--num-workers=1"),
        **{name: [sys.executable, "-c", PILLOW_ALONE, str(source), str(work / "rival.zip"), level]
           for name, level in rivals.items()},
    }  # fmt: skip
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            times[name].append(cost(command))
    click.echo(f"convert {images} PNGs 256x256 -> 64x64, median of {rounds}:")
    best = median(wall for wall, _ in times["dataset_tool.py, 2 workers"])
    for name, found in times.items():
        wall, processor = (median(column) for column in zip(*found))
        click.echo(
            f"  {name:45} {images / wall:6.0f} images/s, {processor / images * 1000:5.2f} ms of processor an image; "
            f"2 workers are {wall / best:.2f} times as fast"
        )


def peak_memory(command: list[str]) -> int:
    """Sum over the process and its children of each one's largest resident set, bytes."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peaks: dict[int, int] = {}
    while process.poll() is None:
        for pid in [process.pid, *children(process.pid)]:
            peaks[pid] = max(peaks.get(pid, 0), resident_peak(pid))
        time.sleep(0.02)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return sum(peaks.values())


def children(pid: int) -> list[int]:
    """Child processes, from Linux's /proc."""
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def resident_peak(pid: int) -> int:
    """VmHWM of a process, bytes; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def memory(work: Path, images: int) -> None:
    """Peak memory for `images` and ten times as many small pictures, from a folder and from a zip."""
    found: dict[tuple[str, int], int] = {}
    for count in (images, 10 * images):
        folder = work / f"small{count}"
        make_pictures(folder, count, 32)
        found["folder", count] = peak_memory(tool(folder, work / f"small{count}.zip", "--num-workers=2"))
        found["zip", count] = peak_memory(tool(work / f"small{count}.zip", work / "again.zip", "--num-workers=2"))
    click.echo("peak memory of all processes:")
    for kind in ("folder", "zip"):
        few, many = found[kind, images], found[kind, 10 * images]
        click.echo(
            f"  {kind:6} {images}: {few / 2**20:.1f} MB, {10 * images}: {many / 2**20:.1f} MB, ratio {many / few:.3f}"
        )


def read(work: Path, images: int, rounds: int) -> None:
    """Images per second of ImageDataset.load in batches of 32, first and later epochs."""
    make_pictures(work / "read", images, 64)
    subprocess.run(tool(work / "read", work / "read.zip", "--num-workers=2"), check=True, stdout=subprocess.DEVNULL)
    batches = np.random.RandomState(0).permutation(images - images % 32).reshape(-1, 32)
    times: dict[str, list[float]] = {
        "Pillow and zipfile": [],
        "decoding (first epoch)": [],
        "cached (later epochs)": [],
    }
    for _ in range(rounds):
        times["Pillow and zipfile"].append(time_pillow(work / "read.zip", batches))
        dataset = open_dataset(work / "read.zip")
        for name in ("decoding (first epoch)", "cached (later epochs)"):
            start = time.perf_counter()
            for batch in batches:
                dataset.load(batch)
            times[name].append(time.perf_counter() - start)
    click.echo(f"read {batches.size} images 64x64 in batches of 32, median of {rounds}:")
    base = median(times["Pillow and zipfile"])
    for name, found in times.items():
        click.echo(f"  {name:25} {batches.size / median(found):9.0f} images/s   {base / median(found):.1f} x")


def time_pillow(path: Path, batches: np.ndarray) -> float:
    """Seconds to read all batches with Pillow and zipfile."""
    with zipfile.ZipFile(path) as z:
        names = sorted(n for n in z.namelist() if n.endswith(".png"))
        start = time.perf_counter()
        for batch in batches:
            images = []
            for index in batch:
                with z.open(names[index]) as f:
                    images.append(np.asarray(Image.open(f)).transpose(2, 0, 1))
            np.stack(images)
        return time.perf_counter() - start


@click.command(help=__doc__)
@click.argument("parts", nargs=-1, type=click.Choice(["convert", "memory", "read"]))
@click.option("--images", default=10_000, show_default=True, help="Pictures (ten times as many for memory's second)")
@click.option("--rounds", default=3, show_default=True, help="Repetitions")
def main(parts: tuple[str, ...], images: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        if not parts or "convert" in parts:
            convert(Path(folder), images, rounds)
        if not parts or "memory" in parts:
            memory(Path(folder), images)
        if not parts or "read" in parts:
            read(Path(folder), images, rounds)


if __name__ == "__main__":
    main()
