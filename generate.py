"""Generates pictures with a trained network, and looks at what it has learned."""

import json
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from tqdm import tqdm

from dnnlib.cli import PATH, Command, Group
from dnnlib.errors import UserError
from dnnlib.plugins import import_file
from metrics.detectors import load_detector
from training import networks
from training.networks import files
from training.networks.attention_maps import attention_maps
from training.networks.generator import NOISE_MODES, Generator, NoiseMode
from training.pictures import enlarged, labelled_sheet, to_pil, to_uint8, write_picture
from training.sampling import (
    class_label,
    image_of_seed,
    images_of_styles,
    load_projected_w,
    parse_seeds,
    styles_of_seeds,
)
from training.visualize import sheets
from training.visualize.attention_picture import attention_sheet, choose_layers
from training.visualize.bulk import Job, generate_many
from training.visualize.explore import serve
from training.visualize.perceptual import PerceptualDistance
from training.visualize.projection import Projection, ProjectionConfig, Space, load_target, project
from training.visualize.throughput import measure, table
from training.visualize.video import check_video_path, write_video
from training.visualize.walk import walk_frames

POSITIVE = click.IntRange(min=1)
WIDE = {"max_content_width": 120}

NETWORK = click.option(
    "--network", type=PATH, required=True, help="Network file (.pkl, .safetensors, official files) or URL"
)
PLUGINS = click.option("--import", "plugins", type=PATH, multiple=True, help="Python file that registers networks")
TRUNC = click.option("--trunc", "psi", type=float, default=1.0, show_default=True, help="Truncation psi")
CLASS = click.option("--class", "class_index", type=int, help="Class of a conditional network")
NOISE = click.option("--noise-mode", type=click.Choice(NOISE_MODES), default="const", show_default=True)
SCALE = click.option("--scale", type=POSITIVE, help="Enlarge every pixel so much  [default: small images to about 96]")


def options(*decorators: Callable) -> Callable[[Callable], Callable]:
    """Several click options as one decorator, listed in this order by --help."""
    return lambda function: reduce(lambda f, decorate: decorate(f), reversed(decorators), function)


def load_generator(file: str, plugins: Sequence[str]) -> Generator:
    """G_ema of a network file, on the GPU if there is one."""
    for plugin in plugins:
        import_file(plugin)
    G = networks.load(file, names=["G_ema"])["G_ema"]
    if G is None:
        raise UserError(f"{file} holds no generator (G_ema)")
    return G.to("cuda" if torch.cuda.is_available() else "cpu")


@click.group(cls=Group, invoke_without_command=True, context_settings=WIDE)
@options(
    click.option("--network", type=PATH, help="Network file (.pkl, .safetensors, official files) or URL"),
    click.option("--outdir", type=PATH, help="Where the pictures go"),
    click.option("--seeds", help="Seeds, e.g. 0,5,100-105"),
    TRUNC,
    CLASS,
    NOISE,
    click.option("--projected-w", type=PATH, help=".npz with styles w, instead of --seeds"),
    PLUGINS,
)
@click.pass_context
def main(
    ctx: click.Context,
    network: str | None,
    outdir: str | None,
    seeds: str | None,
    psi: float,
    class_index: int | None,
    noise_mode: NoiseMode,
    projected_w: str | None,
    plugins: tuple[str, ...],
) -> None:
    """Generate pictures, one file per seed; or one of the commands below (each has its own --help).

    \b
    python generate.py --outdir=out --seeds=100-105 --network=training-runs/00000-.../network-snapshot-000100.pkl
    python generate.py --outdir=out --seeds=0-35 --trunc=0.7 --class=3 --network=FILE
    python generate.py --outdir=out --projected-w=out/projected_w.npz --network=FILE
    """
    if ctx.invoked_subcommand is not None:
        _refuse_options_before(ctx, ctx.invoked_subcommand)
        return
    if network is None or outdir is None:
        missing = "--network=FILE" if network is None else "--outdir=FOLDER"
        raise UserError(f"missing option {missing} (or a command; see python generate.py --help)")
    if (seeds is None) == (projected_w is None):
        raise UserError("say what to generate: either --seeds=0-9 or --projected-w=FILE.npz")
    wanted = parse_seeds(seeds) if seeds is not None else []
    G = load_generator(network, plugins)
    if projected_w is not None:
        save_projected(G, load_projected_w(G, projected_w), noise_mode, make_folder(outdir))
        return
    c = class_label(G, class_index)
    folder = make_folder(outdir)
    for seed in tqdm(wanted, unit="img", disable=None, leave=False):
        to_pil(image_of_seed(G, seed, c, psi, noise_mode)).save(folder / f"seed{seed:04d}.png")
    click.echo(f"{len(wanted)} pictures in {folder}")


def _refuse_options_before(ctx: click.Context, command: str) -> None:
    """Options of the plain form would be ignored before a command: that is a mistake."""
    default = click.core.ParameterSource.DEFAULT
    given = [p.opts[0] for p in ctx.command.params if p.name and ctx.get_parameter_source(p.name) != default]
    if given:
        raise UserError(f"{given[0]} stands before the command: write generate.py {command} {given[0]}=...")


def save_projected(G: Generator, ws: torch.Tensor, noise_mode: NoiseMode, folder: Path) -> None:
    """Writes proj00.png, ... of styles ws [N, num_ws or more, w_dim]."""
    for i, w in enumerate(ws):
        to_pil(images_of_styles(G, w[None], noise_mode, [i])[0]).save(folder / f"proj{i:02d}.png")
    click.echo(f"{len(ws)} pictures in {folder}")


def make_folder(outdir: str) -> Path:
    """The output folder; UserError if it can't be made."""
    folder = Path(outdir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"--outdir: cannot make {outdir}: {e.strerror}") from e
    return folder


def _out(default: str, text: str) -> Callable:
    return click.option("--out", type=PATH, default=default, show_default=True, help=text)


@main.command(cls=Command, context_settings=WIDE)
@options(NETWORK, _out("grid.png", "Picture to write"), click.option("--seeds", default="0-31", show_default=True))
@click.option("--columns", type=POSITIVE, default=8, show_default=True, help="Pictures in a row")
@click.option("--trunc", "psis", default="1", show_default=True, help="Truncation psi; several make a sweep: 0,0.5,1")
@options(CLASS, NOISE, SCALE, PLUGINS)
def grid(
    network: str,
    out: str,
    seeds: str,
    columns: int,
    psis: str,
    class_index: int | None,
    noise_mode: NoiseMode,
    scale: int | None,
    plugins: tuple[str, ...],
) -> None:
    """One sheet of many seeds; of several truncations; or, of a conditional network without --class, of all classes.

    \b
    python generate.py grid --network=FILE --seeds=0-31
    python generate.py grid --network=FILE --seeds=0-7 --trunc=0,0.3,0.7,1
    """
    wanted, sweep = parse_seeds(seeds), parse_numbers(psis)
    G = load_generator(network, plugins)
    scale = scale or sheets.sheet_scale(G.img_size)
    if len(sweep) > 1:
        sheet = sheets.truncation_sheet(G, wanted, class_label(G, class_index), sweep, noise_mode, scale)
    elif G.c_dim and class_index is None:
        sheet = sheets.class_sheet(G, wanted, sweep[0], noise_mode, scale)
    else:
        sheet = sheets.seed_sheet(G, wanted, class_label(G, class_index), sweep[0], noise_mode, columns, scale)
    save(sheet, out)


def parse_numbers(text: str) -> list[float]:
    """`0,0.5,1` -> numbers; UserError for anything else."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--trunc: {text!r} is neither a number nor a list such as 0,0.5,1") from None


def save(picture: Any, out: str) -> None:
    """Writes a picture and says where."""
    write_picture(picture, out)
    click.echo(f"{out}: {picture.width} x {picture.height} pixels")


@main.command(cls=Command, context_settings=WIDE)
@options(NETWORK, _out("mix.png", "Picture to write"))
@click.option("--rows", default="0-3", show_default=True, help="Seeds that give the picture")
@click.option("--cols", default="4-9", show_default=True, help="Seeds that some styles are taken from")
@click.option("--styles", help="Which styles, e.g. 0-2  [default: the first half, the coarse ones]")
@options(TRUNC, CLASS, NOISE, SCALE, PLUGINS)
def mix(
    network: str,
    out: str,
    rows: str,
    cols: str,
    styles: str | None,
    psi: float,
    class_index: int | None,
    noise_mode: NoiseMode,
    scale: int | None,
    plugins: tuple[str, ...],
) -> None:
    """The style mixing matrix: each row's picture with some styles taken from each column's."""
    row_seeds, column_seeds = parse_seeds(rows, "--rows"), parse_seeds(cols, "--cols")
    G = load_generator(network, plugins)
    chosen = sheets.parse_styles(styles or f"0-{(G.num_ws - 1) // 2}", G.num_ws)
    scale = scale or sheets.sheet_scale(G.img_size)
    c = class_label(G, class_index)
    save(sheets.mixing_sheet(G, row_seeds, column_seeds, chosen, c, psi, noise_mode, scale), out)


@main.command(cls=Command, context_settings=WIDE)
@options(NETWORK, _out("walk.mp4", "Video to write, .mp4 or .gif"))
@click.option("--seeds", help="Stations of the walk, e.g. 3,8,20-22")
@click.option("--random", "count", type=click.IntRange(min=2), help="So many random stations, instead of --seeds")
@click.option("--frames", type=POSITIVE, default=45, show_default=True, help="Frames from one station to the next")
@click.option("--fps", type=click.IntRange(1, 120), default=30, show_default=True, help="Frames per second")
@click.option("--loop/--no-loop", default=True, show_default=True, help="Return to the first station, seamlessly")
@options(TRUNC, CLASS, NOISE)
@click.option("--scale", type=POSITIVE, help="Enlarge every pixel so much  [default: small images to about 256]")
@PLUGINS
def walk(
    network: str,
    out: str,
    seeds: str | None,
    count: int | None,
    frames: int,
    fps: int,
    loop: bool,
    psi: float,
    class_index: int | None,
    noise_mode: NoiseMode,
    scale: int | None,
    plugins: tuple[str, ...],
) -> None:
    """A video of a smooth walk through the styles of several seeds."""
    if seeds is not None and count is not None:
        raise UserError("give the stations by --seeds or have them chosen by --random, not both")
    stations = parse_seeds(seeds) if seeds else np.random.default_rng().integers(2**16, size=count or 6).tolist()
    check_video_path(out)
    G = load_generator(network, plugins)
    factor = scale or sheets.sheet_scale(G.img_size, 256)
    total, images = walk_frames(G, stations, class_label(G, class_index), frames, loop, psi, noise_mode)
    bar = tqdm(images, total=total, unit="frame", disable=None, leave=False)
    write_video(out, (enlarged(to_pil(image), factor).convert("RGB") for image in bar), fps, loop)
    click.echo(f"{out}: {total} frames, {total / fps:.1f} s, --seeds={','.join(map(str, stations))}")


@main.command(cls=Command, context_settings=WIDE)
@options(NETWORK, _out("attention.png", "Picture to write"))
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--at", help="The query: x,y from 0,0 (top left) to 1,1  [default: the mean over all queries]")
@click.option("--layers", default="", help="Layers (32x32.0) or sizes (32x32), comma-separated  [default: all]")
@options(TRUNC, CLASS)
@click.option("--scale", type=POSITIVE, help="Enlarge every pixel so much  [default: small images to about 128]")
@PLUGINS
def attention(
    network: str,
    out: str,
    seed: int,
    at: str | None,
    layers: str,
    psi: float,
    class_index: int | None,
    scale: int | None,
    plugins: tuple[str, ...],
) -> None:
    """What the attention layers look at, per layer and head, laid over the image.

    \b
    python generate.py attention --network=FILE --seed=3 --at=0.5,0.3
    python generate.py attention --network=FILE --seed=3 --layers=16x16
    """
    query = None if at is None else parse_point(at)
    G = load_generator(network, plugins)
    image, maps = attention_maps(G, styles_of_seeds(G, [seed], class_label(G, class_index), psi), query)
    chosen = choose_layers(maps, [name for name in layers.split(",") if name])
    factor = scale or sheets.sheet_scale(G.img_size, 128)
    save(attention_sheet(to_uint8(image[0]).cpu(), chosen, query, factor), out)


def parse_point(text: str) -> tuple[float, float]:
    """`x,y` -> (y, x); UserError unless both lie in [0, 1]."""
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--at wants x,y such as 0.5,0.3, got {text!r}") from None
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise UserError(f"--at={text}: both numbers lie between 0 and 1, from the top left corner")
    return y, x


@main.command("project", cls=Command, context_settings=WIDE)
@options(NETWORK, click.option("--target", type=PATH, required=True, help="The picture to find a style for"))
@click.option("--outdir", type=PATH, required=True, help="Where projected_w.npz and the pictures go")
@click.option("--steps", type=POSITIVE, default=ProjectionConfig.steps, show_default=True)
@click.option(
    "--space",
    type=click.Choice(["w+", "w"]),
    default=ProjectionConfig.space,
    show_default=True,
    help="A style for every layer (closer), or one for all (stays among the generator's pictures)",
)
@click.option("--detector", default="lite0", show_default=True, help="Network whose features are compared")
@click.option("--detector-file", type=PATH, help="Its weights, where they are no package")
@click.option("--seed", type=click.IntRange(min=0), default=ProjectionConfig.seed, show_default=True)
@options(CLASS, PLUGINS)
def project_command(
    network: str,
    target: str,
    outdir: str,
    steps: int,
    space: Space,
    detector: str,
    detector_file: str | None,
    seed: int,
    class_index: int | None,
    plugins: tuple[str, ...],
) -> None:
    """Find the style whose picture comes closest to a given picture."""
    G = load_generator(network, plugins)
    c = class_label(G, class_index)
    device = next(G.parameters()).device
    image = load_target(target, G)
    distance = PerceptualDistance(load_detector(detector, device, file=detector_file), image.to(device))
    folder = make_folder(outdir)
    with tqdm(total=steps, unit="step", disable=None, leave=False) as bar:

        def progress(best: float) -> None:
            bar.set_postfix_str(f"distance {best:.4f}", refresh=False)
            bar.update()

        found = project(G, distance, ProjectionConfig(steps=steps, space=space, seed=seed), c, progress)
    save_projection(G, found, image, folder)
    click.echo(
        f"distance {found.distance:.4f}, {found.average_distance / found.distance:.1f} times less than the average "
        f"style's {found.average_distance:.4f}; {folder}/projected_w.npz, comparison.png"
    )


def save_projection(G: Generator, found: Projection, target: torch.Tensor, folder: Path) -> None:
    """projected_w.npz, target.png, projected.png, and comparison.png of average, target and result."""
    np.savez(folder / "projected_w.npz", w=found.ws.numpy())
    images = images_of_styles(G, torch.cat([found.average_ws, found.ws]))
    shown = [images[0], to_uint8(target[0]), images[1]]
    to_pil(shown[1]).save(folder / "target.png")
    to_pil(shown[2]).save(folder / "projected.png")
    cells = sheets.pictures(torch.stack(shown), sheets.sheet_scale(G.img_size, 192))
    labelled_sheet([cells], column_labels=["average", "target", "projected"]).save(folder / "comparison.png")


@main.command(cls=Command, context_settings=WIDE)
@options(NETWORK, click.option("--out", type=PATH, required=True, help="Folder, or .zip to be written"))
@click.option("--count", type=POSITIVE, required=True, help="How many images")
@click.option("--first-seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--batch", type=POSITIVE, default=32, show_default=True, help="Images at a time")
@options(TRUNC, CLASS, NOISE, PLUGINS)
def count(
    network: str,
    out: str,
    count: int,
    first_seed: int,
    batch: int,
    psi: float,
    class_index: int | None,
    noise_mode: NoiseMode,
    plugins: tuple[str, ...],
) -> None:
    """Many images, fast, to a folder or zip laid out as a data set. The same command continues a stopped run.

    \b
    python generate.py count --network=FILE --count=50000 --out=fakes.zip
    """
    if first_seed + count > 2**32:
        raise UserError("--first-seed + --count: seeds end at 2^32")
    G = load_generator(network, plugins)
    content = files.read(network)
    job = Job(content.sha256(content.tensor_digests()), count, first_seed, psi, noise_mode, class_index)
    with tqdm(total=count, unit="img", disable=None, leave=False) as bar:

        def progress(images: int) -> None:
            bar.update(images)

        before = generate_many(G, job, out, batch, progress)
    found = f" ({before} were there already)" if before else ""
    click.echo(f"{out}: {count} images{found}")


@main.command(cls=Command, context_settings=WIDE)
@NETWORK
@click.option("--batches", default="1,8,32", show_default=True, help="Batch sizes, comma-separated")
@click.option("--seconds", type=click.FloatRange(min=0), default=5.0, show_default=True, help="Per batch size")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
@PLUGINS
def bench(network: str, batches: str, seconds: float, as_json: bool, plugins: tuple[str, ...]) -> None:
    """Throughput (images/s), latency and peak memory by batch size: the figures that papers quote."""
    sizes = [int(size) for size in parse_numbers(batches)]
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
        size = f"{G.img_size[1]}x{G.img_size[0]}"
        click.echo(f"{G.cfg.kind}, {size}, {parameters:,} parameters, float32, {name}\n{table(speeds)}")


@main.command(cls=Command, context_settings=WIDE)
@NETWORK
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0: any free one")
@click.option("--open/--no-open", "browse", default=True, show_default=True, help="Open the page in a browser")
@PLUGINS
def explore(network: str, port: int, browse: bool, plugins: tuple[str, ...]) -> None:
    """A local web page (127.0.0.1 only): seed, truncation, noise, class, mixing, and attention at a click."""
    server = serve(load_generator(network, plugins), Path(network).name, port)
    url = f"http://{server.server_address[0]!s}:{server.server_address[1]}/"
    click.echo(f"{url} (stop with Ctrl-C)")
    if browse:
        webbrowser.open(url)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        click.echo("stopped")
    finally:
        server.server_close()


if __name__ == "__main__":
    main()
