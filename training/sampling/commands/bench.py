"""`generate.py bench`: throughput, latency, memory."""

import json
from dataclasses import asdict

import click
import torch

from dnnlib.cli import Command, Number
from dnnlib.errors import UserError
from dnnlib.progress import tqdm
from training.sampling.commands.options import NETWORK, PLUGINS, WIDE, load_generator, parse_numbers
from training.sampling.throughput import measure, table


@click.command(cls=Command, context_settings=WIDE)
@NETWORK
@click.option("--batches", default="1,8,32", show_default=True, help="Batch sizes, comma-separated")
@click.option("--seconds", type=Number(min=0), default=5.0, show_default=True, help="Per batch size")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
@PLUGINS
def bench(network: str, batches: str, seconds: float, as_json: bool, plugins: tuple[str, ...]) -> None:
    """Throughput (images/s), latency and peak memory by batch size: the figures that papers quote."""
    sizes = [int(size) for size in parse_numbers(batches, "--batches")]
    if min(sizes) < 1:
        raise UserError(f"--batches={batches}: batch sizes are positive")
    G = load_generator(network, plugins)
    speeds = [measure(G, size, seconds) for size in tqdm(sizes, unit="batch size", disable=None, leave=False)]
    device = next(G.parameters()).device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    parameters = sum(p.numel() for p in G.parameters())
    if as_json:
        about = {"network": network, "kind": G.cfg.kind, "parameters": parameters, "device": name}
        click.echo(json.dumps(about | {"speeds": [asdict(speed) for speed in speeds]}))
    else:
        size = f"{G.img_size[1]}x{G.img_size[0]}{'' if G.space.takes_pictures else ' latents, not decoded'}"
        click.echo(f"{G.cfg.kind}, {size}, {parameters:,} parameters, float32, {name}\n{table(speeds)}")
