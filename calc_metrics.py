"""Measures a network, a folder of generated images, or a trivial baseline against a data set."""

import dataclasses
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from dnnlib import UserError
from dnnlib.cli import PATH, Command, say
from dnnlib.plugins import import_file
from metrics import MetricResult, compute_metrics, list_metrics, parse_names, table
from metrics.baselines import BASELINES, PCAGaussian
from metrics.detectors import assign_files
from metrics.detectors.resize import RESIZE_MODES
from metrics.evaluate import DEFAULT_BATCH
from torch_utils import distributed
from training import networks
from training.dataset import open_dataset

DEFAULT_METRICS = "fid50k_full"


@dataclasses.dataclass(frozen=True)
class Job:
    """The options of one call; every process gets them."""

    metrics: list[str]
    network: str | None
    images: str | None
    baseline: str | None
    data: str | None
    mirror: bool | None
    detector_files: dict[str, str]
    resize_mode: str | None
    batch: int
    seed: int
    bootstrap: int
    cache: bool
    verbose: bool
    outdir: str | None
    plugins: tuple[str, ...]


@click.command(cls=Command, context_settings={"max_content_width": 120})
@click.option("--metrics", default=DEFAULT_METRICS, show_default=True, help="Comma-separated names, or `list`")
@click.option("--network", type=PATH, help="Network file or URL to measure")
@click.option("--images", type=PATH, help="Folder or zip of generated images to measure instead of a network")
@click.option("--baseline", type=click.Choice(list(BASELINES)), help="Trivial generator to measure instead")
@click.option("--data", type=PATH, help="Data set to compare with  [default: the one the network was trained on]")
@click.option("--mirror", type=bool, help="Training used mirrored images too  [default: as the network file says]")
@click.option("--gpus", type=click.IntRange(min=1), help="Processes  [default: one per GPU, or 1 on a CPU]")
@click.option("--verbose", type=bool, default=True, show_default=True, help="Show progress")
@click.option("--detector", multiple=True, metavar="[NAME=]FILE", help="Weights file of a detector; may be repeated")
@click.option("--resize-mode", type=click.Choice(list(RESIZE_MODES)), help="Instead of the detectors' own way")
@click.option("--batch", type=click.IntRange(min=1), default=DEFAULT_BATCH, show_default=True, help="Images at once")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Chooses the generated images")
@click.option("--bootstrap", type=click.IntRange(min=0), default=0, help="Resamplings for the spread of FID and KID")
@click.option("--cache/--no-cache", default=True, help="Keep the data set's features for next time")
@click.option("--outdir", type=PATH, help="Folder for metric-NAME.jsonl  [default: the network's run folder]")
@click.option("--import", "plugins", type=PATH, multiple=True, help="Python file that registers networks or detectors")
def main(metrics: str, gpus: int | None, detector: tuple[str, ...], **options: Any) -> None:
    """Measure generated images.

    \b
    python calc_metrics.py --metrics=fid50k_full,is50k --data=cifar10.zip --network=snapshot.pkl
    python calc_metrics.py --metrics=kid2k_lite0,cov2k_lite0 --data=datasets/noto-emoji-32.zip --baseline=pca64
    """
    if metrics == "list":
        click.echo("\n".join(list_metrics()))
        return
    names = metrics.split(",")
    for file in options["plugins"]:
        import_file(file)
    wanted = [m.detector for m in parse_names(names)]
    job = Job(metrics=names, detector_files=assign_files(detector, wanted), **options)
    check_job(job)
    launch(job, gpus)


def check_job(job: Job) -> None:
    """UserError where options contradict each other."""
    if [job.network, job.images, job.baseline].count(None) != 2:
        raise UserError("give one of --network, --images and --baseline to say what is measured")
    if job.network is None and job.data is None:
        raise UserError("--data=ZIP is needed to compare with, unless --network tells which data it was trained on")
    if job.outdir is not None and not Path(job.outdir).is_dir():
        raise UserError(f"--outdir: {job.outdir} is no folder")


def launch(job: Job, gpus: int | None) -> None:
    """Runs the job here, in processes of its own, or as one of torchrun's processes."""
    count = distributed.process_count(gpus)
    distributed.run(run_process, (job.plugins, job), count, command=dataclasses.asdict(job))


def run_process(plugins: tuple[str, ...], job: Job) -> None:
    """One of the processes, which may be new."""
    for file in plugins:
        import_file(file)
    measure(job)


def measure(job: Job) -> None:
    """Loads, measures, prints the table, writes metric-NAME.jsonl."""
    device = distributed.own_device()
    network = networks.load(job.network, names=["G_ema"], device=device) if job.network else {}
    trained_on = training_data(network)
    path = job.data or trained_on.path
    if path is None:
        raise UserError(f"{job.network} does not tell which data it was trained on; give --data=ZIP")
    G = network.get("G_ema")
    if job.network and G is None:
        raise UserError(f"{job.network} holds no G_ema to measure")
    dataset = open_dataset(path, use_labels=bool(G is not None and G.c_dim))
    if job.baseline:
        G = PCAGaussian(dataset, BASELINES[job.baseline]).to(device)
    images = open_dataset(job.images) if job.images else None
    with Progress(job.verbose and distributed.rank() == 0) as progress:
        results = compute_metrics(
            job.metrics,
            G,
            dataset,
            images=images,
            device=device,
            batch=job.batch,
            seed=job.seed,
            mirror=trained_on.mirror if job.mirror is None else job.mirror,
            cache=job.cache,
            detector_files=job.detector_files,
            resize_mode=job.resize_mode,
            bootstrap=job.bootstrap,
            progress=progress,
        )
    if distributed.rank() == 0:
        report(job, results)


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """What a network file says of the data its network was trained on."""

    path: str | None = None
    mirror: bool = False


def training_data(network: dict[str, Any]) -> TrainingData:
    """Our files hold the run's config, official ones the arguments of the data set."""
    config, kwargs = network.get("training_config"), network.get("training_set_kwargs")
    data = config.get("data") if isinstance(config, dict) else None
    if isinstance(data, dict):
        return TrainingData(_text(data.get("path")), data.get("mirror") is True)
    if isinstance(kwargs, dict):
        return TrainingData(_text(kwargs.get("path")), kwargs.get("xflip") is True)
    return TrainingData()


def _text(value: Any) -> str | None:
    """A path, if it is one: a file can say anything."""
    return value if isinstance(value, str) and value and "\0" not in value else None


def report(job: Job, results: list[MetricResult]) -> None:
    """The table on stdout; a line per metric in the run folder, if there is one."""
    say(table(results))
    folder = Path(job.outdir) if job.outdir is not None else run_folder(job.network)
    if folder is None:
        return
    for result in results:
        path = result.append_to(folder, Path(job.network).name if job.network else None)
        say(f"added to {path}")


def run_folder(network: str | None) -> Path | None:
    """The folder of the training run that a network file lies in."""
    folder = Path(network).parent if network else None
    return folder if folder is not None and (folder / "training_options.json").is_file() else None


class Progress:
    """A progress bar for every pass, on a terminal."""

    def __init__(self, shown: bool) -> None:
        self._disable = None if shown else True  # None: only on a terminal
        self._bars: dict[str, tqdm] = {}

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exc: object) -> None:
        for bar in self._bars.values():
            bar.close()

    def __call__(self, what: str, done: int, count: int) -> None:
        if what not in self._bars:
            self._bars[what] = tqdm(total=count, desc=what, unit="img", disable=self._disable, leave=False)
        self._bars[what].update(done - self._bars[what].n)


if __name__ == "__main__":
    main()
