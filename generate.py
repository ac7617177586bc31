"""Generates pictures from seeds or from projected styles with a trained network."""

from pathlib import Path

import click
import torch
from tqdm import tqdm

from dnnlib.cli import PATH, Command
from dnnlib.errors import UserError
from dnnlib.plugins import import_file
from training import networks
from training.networks.generator import NOISE_MODES, Generator, NoiseMode
from training.pictures import to_pil, to_uint8
from training.sampling import class_label, image_of_seed, load_projected_w, parse_seeds


@click.command(cls=Command, context_settings={"max_content_width": 120})
@click.option("--network", type=PATH, required=True, help="Network file (.pkl, .safetensors, official files) or URL")
@click.option("--outdir", type=PATH, required=True, help="Where the pictures go")
@click.option("--seeds", help="Seeds, e.g. 0,5,100-105")
@click.option("--trunc", "psi", type=float, default=1.0, show_default=True, help="Truncation psi")
@click.option("--class", "class_index", type=int, help="Class of a conditional network")
@click.option("--noise-mode", type=click.Choice(NOISE_MODES), default="const", show_default=True)
@click.option("--projected-w", type=PATH, help=".npz with styles w, instead of --seeds")
@click.option("--import", "plugins", type=PATH, multiple=True, help="Python file that registers networks")
def main(
    network: str,
    outdir: str,
    seeds: str | None,
    psi: float,
    class_index: int | None,
    noise_mode: NoiseMode,
    projected_w: str | None,
    plugins: tuple[str, ...],
) -> None:
    """Generate pictures.

    \b
    python generate.py --outdir=out --seeds=100-105 --network=training-runs/00000-.../network-snapshot-000100.pkl
    python generate.py --outdir=out --seeds=0-35 --trunc=0.7 --class=3 --network=FILE
    python generate.py --outdir=out --projected-w=projected_w.npz --network=FILE
    """
    for file in plugins:
        import_file(file)
    if (seeds is None) == (projected_w is None):
        raise UserError("say what to generate: either --seeds=0-9 or --projected-w=FILE.npz")
    wanted = parse_seeds(seeds) if seeds is not None else []
    G = networks.load(network, names=["G_ema"])["G_ema"]
    if G is None:
        raise UserError(f"{network} holds no generator (G_ema)")
    G.to("cuda" if torch.cuda.is_available() else "cpu")
    if projected_w is not None:
        save_projected(G, load_projected_w(G, projected_w), noise_mode, make_folder(outdir))
        return
    c = class_label(G, class_index)
    folder = make_folder(outdir)
    for seed in tqdm(wanted, unit="img", disable=None, leave=False):
        to_pil(image_of_seed(G, seed, c, psi, noise_mode)).save(folder / f"seed{seed:04d}.png")
    click.echo(f"{len(wanted)} pictures in {folder}")


def save_projected(G: Generator, ws: torch.Tensor, noise_mode: NoiseMode, folder: Path) -> None:
    """Writes proj00.png, ... of styles ws [N, num_ws or more, w_dim]."""
    device = next(G.parameters()).device
    for i, w in enumerate(ws.to(device)):
        with torch.no_grad():
            image = G.synthesis(w[None], noise_mode=noise_mode)
        to_pil(to_uint8(image[0])).save(folder / f"proj{i:02d}.png")
    click.echo(f"{len(ws)} pictures in {folder}")


def make_folder(outdir: str) -> Path:
    """The output folder; UserError if it can't be made."""
    folder = Path(outdir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"--outdir: cannot make {outdir}: {e.strerror}") from e
    return folder


if __name__ == "__main__":
    main()
