"""`generate.py count`: thousands of images, as a data set."""

import click

from dnnlib.cli import PATH, SEED, Command, counted
from dnnlib.errors import UserError
from dnnlib.progress import tqdm
from training.networks import files
from training.networks.shared.generator import NoiseMode
from training.sampling.bulk import Job, generate_many
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
)


@click.command(cls=Command, goes_on=True, context_settings=WIDE)
@options(NETWORK, click.option("--out", type=PATH, required=True, help="Folder, or .zip to be written"))
@click.option("--count", type=POSITIVE, required=True, help="How many images")
@click.option("--first-seed", type=SEED, default=0, show_default=True)
@click.option("--batch", type=POSITIVE, default=32, show_default=True, help="Images at a time")
@options(TRUNC, GUIDANCE, CLASS, NOISE, PLUGINS)
def count(
    network: str,
    out: str,
    count: int,
    first_seed: int,
    batch: int,
    psi: float,
    guidance: float | None,
    labels: LabelOptions,
    noise_mode: NoiseMode,
    plugins: tuple[str, ...],
) -> None:
    """Many images, fast, to a folder or zip laid out as a data set. The same command continues a stopped run.

    \b
    python generate.py count --network=FILE --count=50000 --out=fakes.zip
    """
    if first_seed + count > 2**32:
        raise UserError("--first-seed + --count: seeds end at 2^32")
    G = load_generator(network, plugins, guidance)
    vectors = labels.vectors(G)
    given = None if vectors is None else vectors.tolist()
    content = files.read(network)
    digest = content.sha256(content.tensor_digests())
    job = Job(digest, count, first_seed, psi, noise_mode, labels.class_index, given, guidance)
    with tqdm(total=count, unit="img", disable=None, leave=False) as bar:

        def progress(images: int) -> None:
            bar.update(images)

        before = generate_many(G, job, out, batch, progress)
    found = f" ({before} were there already)" if before else ""
    click.echo(f"{out}: {counted(count, 'image')}{found}")
