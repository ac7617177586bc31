"""How much of the bare forward's speed `generate.py count` keeps, and how long attention maps take.

    python benchmarks/sampling.py [--network=FILE] [--images=512] [--rounds=3]

Forward and count take turns, so that whatever else the machine does hits both. On a busy machine the processor seconds
are the figure to look at: they don't count the time when others were running.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import click
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent))

from training import networks
from training.presets import PRESETS
from training.sampling.attention.maps import attention_maps
from training.sampling.bulk import Job, generate_many
from training.sampling.seeds import device_of, latent, styles_of_seeds


def network_of(file: str | None):
    if file is not None:
        return networks.load(file, names=["G_ema"])["G_ema"]
    cfg = PRESETS["demo"].build(32, 1).G
    return networks.build(cfg).eval().requires_grad_(False)


def bare_forward(G, images: int, batch: int) -> None:
    """So many images, from z to float images, nothing kept."""
    device = device_of(G)
    z = torch.cat([latent(G, i) for i in range(batch)]).to(device)
    c = torch.zeros(batch, G.c_dim, device=device)
    with torch.no_grad():
        for _ in range(images // batch):
            G(z, c, noise_mode="const")
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bulk(G, images: int, batch: int, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        generate_many(G, Job("benchmark", images), str(Path(folder) / name), batch)


def timed(function, *arguments) -> tuple[float, float]:
    """(seconds on the clock, seconds of processor time) of one call."""
    clock, processor = time.perf_counter(), time.process_time()
    function(*arguments)
    return time.perf_counter() - clock, time.process_time() - processor


@click.command()
@click.option("--network", help="Network file; otherwise preset demo with fresh weights")
@click.option("--images", default=512)
@click.option("--batch", default=32)
@click.option("--rounds", default=3)
def main(network: str | None, images: int, batch: int, rounds: int) -> None:
    G = network_of(network)
    G.to("cuda" if torch.cuda.is_available() else "cpu")
    bare_forward(G, batch, batch)
    rows = {
        "bare forward": (bare_forward, G, images, batch),
        "count, folder": (bulk, G, images, batch, "out"),
        "count, zip": (bulk, G, images, batch, "out.zip"),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
    for _ in tqdm(range(rounds), disable=None):
        for name, call in rows.items():
            times[name].append(timed(*call))
    medians = {name: [statistics.median(column) for column in zip(*times[name])] for name in rows}
    bare = medians["bare forward"]
    for name, (clock, processor) in medians.items():
        print(
            f"{name:14s} {images / clock:8.1f} images/s  {bare[0] / clock:6.1%}   "
            f"{processor / images * 1e3:6.2f} ms of processor each  {bare[1] / processor:6.1%}"
        )
    ws = styles_of_seeds(G, [0], torch.zeros(1, G.c_dim))
    print(f"attention maps of one query, all layers: {timed(attention_maps, G, ws, (0.5, 0.5))[0] * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
