"""Measures a network, two networks, a folder of generated images, or a trivial baseline against a data set."""

import dnnlib.startup  # noqa: F401  (first, because the other imports take seconds)

# isort: split
import dataclasses
import os
from pathlib import Path
from typing import Any

import click

from dnnlib import UserError
from dnnlib.cli import NETWORK_FILE, PATH, SEED, Command, say
from dnnlib.plugins import import_file
from dnnlib.progress import tqdm
from metrics import (
    Comparison,
    MetricResult,
    Split,
    compare_networks,
    comparison_table,
    compute_metrics,
    list_metrics,
    parse_names,
    table,
)
from metrics.baselines import BASELINES, PCAGaussian
from metrics.detectors import assign_files
from metrics.detectors.resize import RESIZE_MODES
from metrics.evaluate import DEFAULT_BATCH, DEFAULT_RESAMPLINGS
from metrics.families import FAMILIES
from torch_utils import distributed
from torch_utils.devices import device_option
from training import networks
from training.dataset import open_dataset

DEFAULT_METRICS = "fid50k_full"


@dataclasses.dataclass(frozen=True)
class Job:
    """The options of one call; every process gets them."""

    metrics: list[str]
    network: str | None
    compare: tuple[str, str] | None
    images: str | None
    baseline: str | None
    data: str | None
    held_out: str | None
    mirror: bool | None
    detector_files: dict[str, str]
    resize_mode: str | None
    batch: int
    seed: int
    bootstrap: int | None
    cache: bool
    verbose: bool
    outdir: str | None
    plugins: tuple[str, ...]


@click.command(cls=Command, context_settings={"max_content_width": 120})
@click.option("--metrics", default=DEFAULT_METRICS, show_default=True, help="Comma-separated names, or `list`")
@click.option("--network", type=NETWORK_FILE, help="Network file or URL to measure")
@device_option
@click.option("--compare", type=NETWORK_FILE, nargs=2, metavar="A B", help="Two networks, on the same latents, instead")
@click.option("--images", type=PATH, help="Folder or zip of generated images to measure instead of a network")
@click.option("--baseline", type=click.Choice(list(BASELINES)), help="Trivial generator to measure instead")
@click.option("--data", type=PATH, help="Data set to compare with  [default: the one the network was trained on]")
@click.option("--held-out", type=PATH, help="For mem: images not trained on  [default: what --subset left out]")
@click.option("--mirror", type=bool, help="Training used mirrored images too  [default: as the network file says]")
@click.option("--gpus", type=click.IntRange(min=1), help="Processes  [default: one per GPU, or 1 on a CPU]")
@click.option("--verbose", type=bool, default=True, show_default=True, help="Show progress")
@click.option("--detector", multiple=True, metavar="[NAME=]FILE", help="Weights file of a detector; may be repeated")
@click.option("--resize-mode", type=click.Choice(list(RESIZE_MODES)), help="Instead of the detectors' own way")
@click.option("--batch", type=click.IntRange(min=1), default=DEFAULT_BATCH, show_default=True, help="Images at once")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Chooses the generated images")
@click.option(
    "--bootstrap",
    type=click.IntRange(min=0),
    help=f"Resamplings for the values' deviations  [default: 0; of --compare {DEFAULT_RESAMPLINGS}]",
)
@click.option("--cache/--no-cache", default=True, help="Keep the data set's features for next time")
@click.option("--outdir", type=PATH, help="Folder for metric-NAME.jsonl  [default: the network's run folder]")
@click.option("--import", "plugins", type=PATH, multiple=True, help="Python file that registers networks or detectors")
def main(metrics: str, gpus: int | None, detector: tuple[str, ...], **options: Any) -> None:
    """Measure generated images.

    \b
    python calc_metrics.py --metrics=fid50k_full,is50k --data=cifar10.zip --network=snapshot.pkl
    python calc_metrics.py --metrics=kid2k_lite0,cov2k_lite0 --data=datasets/noto-emoji-32.zip --baseline=pca64
    python calc_metrics.py --metrics=fid50k_full --compare a.pkl b.pkl
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
    if [job.network, job.compare, job.images, job.baseline].count(None) != 3:
        raise UserError("give one of --network, --compare, --images and --baseline to say what is measured")
    if job.network is None and job.compare is None and job.data is None:
        raise UserError("--data=ZIP is needed to compare with, unless --network tells which data it was trained on")
    if job.bootstrap is not None and job.bootstrap < 2 and (job.bootstrap or job.compare):
        raise UserError(f"--bootstrap={job.bootstrap}: a deviation wants 2 resamplings or more")
    if job.held_out is not None and not _knows_held_out(job):
        raise UserError("--held-out is for metrics such as mem5k_lite0, and none of these looks at it")
    if job.outdir is not None and not Path(job.outdir).is_dir():
        raise UserError(f"--outdir: {job.outdir} is no folder")
    if job.outdir is not None and not os.access(job.outdir, os.W_OK):
        raise UserError(f"--outdir: {job.outdir} can't be written: choose another place")


def launch(job: Job, gpus: int | None) -> None:
    """Runs the job here, in processes of its own, or as one of torchrun's processes."""
    count = distributed.process_count(gpus)
    distributed.run(run_process, (job.plugins, job), count, command=dataclasses.asdict(job))


def run_process(plugins: tuple[str, ...], job: Job) -> None:
    """One of the processes, which may be new."""
    for file in plugins:
        import_file(file)
    measure(job)


def _knows_held_out(job: Job) -> bool:
    return any(FAMILIES[m.family].needs_held_out for m in parse_names(job.metrics))


def measure(job: Job) -> None:
    """Loads, measures, prints the table, writes metric-NAME.jsonl or compare-NAME.jsonl."""
    device = distributed.own_device()
    files = [job.network] if job.network else list(job.compare or ())
    loaded = [networks.load(file, names=["G_ema"], device=device) for file in files]
    for file, content in zip(files, loaded):
        if content["G_ema"] is None:
            raise UserError(f"{file} holds no G_ema to measure")
    generators: list[Any] = [content["G_ema"] for content in loaded]
    trained_on = common_data(job, [training_data(content) for content in loaded])
    path = job.data or trained_on.path
    if path is None:
        raise UserError(f"{files[-1]} does not tell which data it was trained on; give --data=ZIP")
    dataset = open_dataset(path, use_labels=any(G.c_dim for G in generators))
    if job.baseline:
        generators = [PCAGaussian(dataset, BASELINES[job.baseline]).to(device)]
    with Progress(job.verbose and distributed.rank() == 0) as progress:
        settings = settings_of(job, path, trained_on) | {"device": device, "progress": progress}
        if job.compare:
            A, B = generators
            compared = compare_networks(job.metrics, A, B, dataset, **settings)
        else:
            images = open_dataset(job.images) if job.images else None
            G = generators[0] if generators else None
            results = compute_metrics(job.metrics, G, dataset, images=images, **settings)
    if distributed.rank() == 0 and job.compare:
        report_comparison(job, compared)
    elif distributed.rank() == 0:
        report(job, results)


def settings_of(job: Job, path: str, trained_on: "TrainingData") -> dict[str, Any]:
    """What compute_metrics and compare_networks have in common."""
    mirror = trained_on.mirror if job.mirror is None else job.mirror
    repeats = job.bootstrap
    return {
        "batch": job.batch,
        "seed": job.seed,
        "mirror": mirror,
        "cache": job.cache,
        "detector_files": job.detector_files,
        "resize_mode": job.resize_mode,
        "bootstrap": (DEFAULT_RESAMPLINGS if job.compare else 0) if repeats is None else repeats,
        "split": split_of(job, path, trained_on, mirror) if _knows_held_out(job) else None,
    }


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """What a network file says of the data its network was trained on."""

    path: str | None = None
    mirror: bool = False
    subset: int | None = None  # of our own runs: --subset


def training_data(network: dict[str, Any]) -> TrainingData:
    """Our files hold the run's config, official ones the arguments of the data set."""
    config, kwargs = network.get("training_config"), network.get("training_set_kwargs")
    data = config.get("data") if isinstance(config, dict) else None
    if isinstance(data, dict):
        size = data.get("max_size")
        subset = size if type(size) is int and size > 0 else None
        return TrainingData(_text(data.get("path")), data.get("mirror") is True, subset)
    if isinstance(kwargs, dict):
        return TrainingData(_text(kwargs.get("path")), kwargs.get("xflip") is True)
    return TrainingData()


def common_data(job: Job, told: list[TrainingData]) -> TrainingData:
    """What the networks, one or two, were trained on. UserError where that differs and it matters."""
    if not told:
        return TrainingData()
    if job.compare and told[0] != told[1] and (job.data is None or _knows_held_out(job)):
        what = "; give --data=ZIP" if not _knows_held_out(job) else ": what is held out for one is not for the other"
        raise UserError(f"{job.compare[0]} and {job.compare[1]} were trained on different data{what}")
    return told[-1]


def split_of(job: Job, path: str, trained_on: TrainingData, mirror: bool) -> Split:
    """The images that the network was trained on, mirrored ones too if it saw these, and the others: those of
    --held-out, or what --subset left out. UserError where nothing is known to be held out."""
    is_own_data = job.data is None or os.path.abspath(job.data) == trained_on.path
    training = open_dataset(path, max_size=trained_on.subset if is_own_data else None, xflip=mirror)
    if job.held_out is not None:
        return Split(training, open_dataset(job.held_out))
    if trained_on.subset is None or not is_own_data:
        raise UserError(
            f"{', '.join(job.metrics)}: which pictures were not trained on? --held-out=ZIP says it, unless the "
            "network was trained with --subset"
        )
    return Split(training, training.left_out())


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


def report_comparison(job: Job, comparisons: list[Comparison]) -> None:
    """The table on stdout; a line per metric in --outdir, if it is given."""
    assert job.compare is not None
    say("\n".join(f"{letter}: {name}" for letter, name in zip("AB", job.compare)))
    say(comparison_table(comparisons))
    if job.outdir is not None:
        for comparison in comparisons:
            say(f"added to {comparison.append_to(job.outdir, job.compare)}")


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
