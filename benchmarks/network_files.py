"""Size and loading time of network files, against a pickle of the same modules as the original programs write it.

    python benchmarks/network_files.py [--threads=2]

The original pickles every module with its tensors as torch streams of their own. The comparison file is written the
same way (`pickle.dump` of the modules); it lacks the originals' stored source, so it is a little smaller and faster.
"""

import os
import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from training import networks
from training.networks.discriminators.stylegan2 import StyleGAN2DiscriminatorConfig
from training.networks.discriminators.wavelet import WaveletDiscriminatorConfig
from training.networks.generators.styleformer import StyleformerConfig
from training.networks.generators.stylenat import StyleNATConfig
from training.networks.registry import NetworkConfig

CASES: dict[str, tuple[NetworkConfig, NetworkConfig]] = {
    "styleformer 32 (README)": (
        StyleformerConfig(mapping_layers=2),
        StyleGAN2DiscriminatorConfig(architecture="orig"),
    ),
    "stylenat 256 (ffhq256)": (
        StyleNATConfig(img_resolution=(256, 256)),
        WaveletDiscriminatorConfig(img_resolution=(256, 256)),
    ),
}


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median time of `work`."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def load_pickle(path: Path) -> object:
    with open(path, "rb") as file:
        return pickle.load(file)


@click.command()
@click.option("--threads", type=int, default=os.cpu_count())
@click.option("--repeats", type=int, default=5)
def main(threads: int, repeats: int) -> None:
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case, (G_cfg, D_cfg) in CASES.items():
            modules = {"G": networks.build(G_cfg), "D": networks.build(D_cfg), "G_ema": networks.build(G_cfg)}
            reference, own, twin = folder / "original.pkl", folder / "own.pkl", folder / "own.safetensors"
            reference.write_bytes(pickle.dumps(modules))
            networks.save(own, modules)
            networks.save(twin, modules)
            times = {
                "original": seconds(partial(load_pickle, reference), repeats),
                "pkl": seconds(partial(networks.load, own), repeats),
                "safetensors": seconds(partial(networks.load, twin), repeats),
                "pkl, G_ema only": seconds(partial(networks.load, own, ["G_ema"]), repeats),
                "pkl, saving": seconds(partial(networks.save, own, modules), repeats),
            }
            size = own.stat().st_size / reference.stat().st_size
            click.echo(f"{case}: {own.stat().st_size / 2**20:.1f} MiB, {size:.4f} of the original's size")
            for what, t in times.items():
                click.echo(f"  {what:16s} {t * 1e3:8.1f} ms, {t / times['original']:.2f} of the original")


if __name__ == "__main__":
    main()
