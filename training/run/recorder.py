"""What a run leaves behind at its reports and snapshots: the first process writes it, the others write nothing."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from torch import nn

from dnnlib.config import to_dict
from dnnlib.errors import UserError
from metrics import MetricResult
from torch_utils.training_stats import Stats
from training import networks
from training.config import TrainingConfig
from training.dataset import ImageDataset
from training.ema.posthoc import average_name, average_provenance
from training.run.checkpoint import measured, save_state, thin_snapshots, unmeasured
from training.run.report.page import write_report
from training.run.run_folder import RunFolder
from training.run.sample_grid import SampleGrid
from training.training_loop import Trainer


class Recorder:
    """Writes nothing: that of every process but the first, and of trainings without a folder."""

    is_heard = False  # whether anything that it says reaches a reader

    def say(self, text: str) -> None:
        """A line for the terminal and the log."""

    def report(self, stats: Stats, nimg: int) -> None:
        """The statistics of a tick."""

    def save_pictures(self, trainer: Trainer) -> None:
        """The sample grid."""

    def save_networks(self, trainer: Trainer, name: str, data: ImageDataset) -> None:
        """The network file `name` of networks trained on `data`."""

    def save_averages(self, trainer: Trainer, data: ImageDataset) -> None:
        """The power-function averages of networks trained on `data`."""

    def rewind(self, cfg: TrainingConfig, state: dict[str, Any]) -> None:
        """Makes the folder what it was when `state` was saved."""

    def save_state(self, state: dict[str, Any]) -> None:
        """The state that the run goes on from."""

    def save_results(self, results: Sequence[MetricResult], snapshot: str, nimg: int) -> None:
        """What metrics said of a network file."""

    def unmeasured(self, names: Sequence[str], snapshot: str) -> list[str]:
        """Metrics that have no value for a network file yet."""
        return list(names)

    def finish_snapshot(self) -> None:
        """After everything of a snapshot is there."""


class FolderRecorder(Recorder):
    """Writes into a run folder."""

    is_heard = True

    def __init__(self, run: RunFolder, trainer: Trainer):
        self._run, self._trainer = run, trainer

    @cached_property
    def _has_pictures(self) -> bool:
        """Not where what the generator makes can't be decoded on this machine."""
        try:
            self._trainer.G.space.check()
        except UserError:  # train.py has said it
            return False
        return True

    @cached_property
    def _grid(self) -> SampleGrid:
        # Not before the first snapshot: until a state has been loaded, nothing in its folder may change.
        trainer = self._trainer
        return SampleGrid.draw(trainer.dataset, trainer.G, trainer.cfg.seed, self._run.file("reals.png"))

    def say(self, text: str) -> None:
        self._run.say(text)

    def report(self, stats: Stats, nimg: int) -> None:
        self._run.add_stats(stats, nimg)
        mean = {name: value["mean"] for name, value in stats.items()}
        self._run.say(_status_line(mean), _short_line(mean))

    def save_pictures(self, trainer: Trainer) -> None:
        if not self._has_pictures:
            return
        nimg = trainer.nimg
        name = "fakes_init.png" if nimg == 0 else f"fakes{nimg // 1000:06d}.png"
        found = self._grid.save(trainer.G_ema, self._run.file(name))
        if nimg == 0:
            self._run.track_picture("Samples/reals", "reals.png", nimg)
        self._run.track_picture("Samples/fakes", name, nimg)
        warning = trainer.health.after_pictures(found / max(self._grid.real_diversity, 1e-9), nimg)
        if warning:
            self._run.say(warning)

    def save_networks(self, trainer: Trainer, name: str, data: ImageDataset) -> None:
        self._save(name, trainer.modules(), data, {"kimg": trainer.nimg / 1000})

    def save_averages(self, trainer: Trainer, data: ImageDataset) -> None:
        for length, average in trainer.averages.modules.items():
            name = average_name(length, trainer.nimg)
            self._save(name, {"G_ema": average}, data, average_provenance(length, trainer.nimg))

    def _save(self, name: str, modules: dict[str, nn.Module], data: ImageDataset, about: dict[str, Any]) -> None:
        cfg = self._trainer.cfg
        told = to_dict(cfg.data) | {"num_images": len(data), "labels": data.label_examples()}
        networks.save(self._run.file(name), modules, training_config=cfg, training_set_kwargs=told, provenance=about)

    def rewind(self, cfg: TrainingConfig, state: dict[str, Any]) -> None:
        self._run.rewind(cfg, state)

    def save_state(self, state: dict[str, Any]) -> None:
        save_state(self._run.path, state | {"log_sizes": self._run.log_sizes()})

    def save_results(self, results: Sequence[MetricResult], snapshot: str, nimg: int) -> None:
        for result in results:
            result.append_to(self._run.path, snapshot)
            self._run.track({f"Metrics/{name}": value for name, value in result.results.items()}, nimg)
            self._run.say(_metric_line(result.results))

    def unmeasured(self, names: Sequence[str], snapshot: str) -> list[str]:
        """Also says the others' lines again, which a continued run has dropped from its log."""
        for name in names:
            found = measured(self._run.path, name, snapshot)
            if found is not None:
                self._run.say(_metric_line(found))
        return unmeasured(self._run.path, list(names), snapshot)

    def finish_snapshot(self) -> None:
        keep = self._trainer.cfg.keep_snapshots
        if keep is not None:
            thin_snapshots(self._run.path, keep)
        problem = write_report(self._run.path)
        if problem:
            self._run.say(problem)


def _status_line(mean: dict[str, float]) -> str:
    """The line that the field knows, for log.txt."""
    return (
        f"tick {mean['Progress/tick']:<5.0f} kimg {mean['Progress/kimg']:<8.1f} "
        f"time {_duration(mean['Timing/total_sec']):<12s} sec/tick {mean['Timing/sec_per_tick']:<7.1f} "
        f"sec/kimg {mean['Timing/sec_per_kimg']:<7.2f} maintenance {mean['Timing/maintenance_sec']:<6.1f} "
        f"cpumem {mean['Resources/cpu_mem_gb']:<6.2f} gpumem {mean['Resources/peak_gpu_mem_gb']:<6.2f} "
        f"augment {mean['Progress/augment']:.3f}"
    )


def _short_line(mean: dict[str, float]) -> str:
    """What of it fits a terminal of 80 columns."""
    return (
        f"tick {mean['Progress/tick']:<4.0f} kimg {mean['Progress/kimg']:<6.1f} "
        f"time {_duration(mean['Timing/total_sec']):<8s} sec/kimg {mean['Timing/sec_per_kimg']:<5.1f} "
        f"maintenance {mean['Timing/maintenance_sec']:<4.1f} augment {mean['Progress/augment']:.2f}"
    )


def _metric_line(results: dict[str, float]) -> str:
    return f"{'':10s} " + ", ".join(f"{name} {value:.5g}" for name, value in results.items())


def _duration(seconds: float) -> str:
    """90000 -> '1d 01h 00m', 75 -> '1m 15s'."""
    s = int(seconds)
    if s < 60:
        return f"{s}s"
    if s < 3600:
        return f"{s // 60}m {s % 60:02d}s"
    if s < 86400:
        return f"{s // 3600}h {s // 60 % 60:02d}m {s % 60:02d}s"
    return f"{s // 86400}d {s // 3600 % 24:02d}h {s // 60 % 60:02d}m"
