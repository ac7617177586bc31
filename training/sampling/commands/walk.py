"""`generate.py walk`: a video of a smooth walk through styles."""

import click
import numpy as np

from dnnlib.cli import Command
from dnnlib.errors import UserError
from dnnlib.progress import tqdm
from training.networks.shared.generator import NoiseMode
from training.sampling import sheets
from training.sampling.commands.options import (
    CLASS,
    GUIDANCE,
    NETWORK,
    NOISE,
    PLUGINS,
    POSITIVE,
    TRUNC,
    WIDE,
    LabelOptions,
    load_generator,
    options,
    out_option,
    scale_option,
)
from training.sampling.pictures import enlarged, to_pil
from training.sampling.seeds import parse_seeds
from training.sampling.video import check_video_path, write_video
from training.sampling.walks import grid_frames, parse_grid


@click.command(cls=Command, context_settings=WIDE)
@options(NETWORK, out_option("walk.mp4", "Video to write, .mp4 or .gif"))
@click.option("--seeds", help="Stations of the walk, e.g. 3,8,20-22")
@click.option(
    "--random", "count", type=click.IntRange(min=2), help="So many random stations a walk, instead of --seeds"
)
@click.option("--frames", type=POSITIVE, default=45, show_default=True, help="Frames from one station to the next")
@click.option("--grid", default="1x1", help="Several walks beside each other, columns x rows, e.g. 4x2")
@click.option("--fps", type=click.IntRange(1, 120), default=30, show_default=True, help="Frames per second")
@click.option("--loop/--no-loop", default=True, show_default=True, help="Return to the first station, seamlessly")
@options(TRUNC, GUIDANCE, CLASS, NOISE, scale_option(256), PLUGINS)
def walk(
    network: str,
    out: str,
    seeds: str | None,
    count: int | None,
    frames: int,
    grid: str,
    fps: int,
    loop: bool,
    psi: float,
    guidance: float | None,
    labels: LabelOptions,
    noise_mode: NoiseMode,
    scale: int | None,
    plugins: tuple[str, ...],
) -> None:
    """A video of a smooth walk through the styles of several seeds."""
    if seeds is not None and count is not None:
        raise UserError("give the stations by --seeds or have them chosen by --random, not both")
    columns, rows = parse_grid(grid)
    drawn = (count or 6) * columns * rows
    stations = parse_seeds(seeds) if seeds else np.random.default_rng().integers(2**16, size=drawn).tolist()
    check_video_path(out)
    G = load_generator(network, plugins, guidance)
    factor = scale or sheets.sheet_scale(G.picture_size, 256 // max(columns, rows))
    total, images = grid_frames(G, stations, (columns, rows), labels.one(G), frames, loop, psi, noise_mode)
    bar = tqdm(images, total=total, unit="frame", disable=None, leave=False)
    write_video(out, (enlarged(to_pil(image), factor).convert("RGB") for image in bar), fps, loop)
    click.echo(f"{out}: {total} frames, {total / fps:.1f} s, --seeds={','.join(map(str, stations))}")
