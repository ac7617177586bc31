"""A session of training: `done? -> report -> snapshot -> stop or step`, the same for its first, middle and last round.

The trainer steps; the recorder of the first process writes what a run leaves behind, those of the others nothing.
"""

from typing import Any

from dnnlib.progress import tqdm
from metrics import compute_metrics
from torch_utils import distributed
from training.dataset import ImageDataset
from training.run.recorder import Recorder
from training.run.state_checks import check_entries
from training.step.clock import Stopwatch, memory_gib
from training.step.interrupt import StopMeasuring, StopRequest
from training.training_loop import Trainer

_COUNTERS = ("tick", "next_tick", "last_snapshot")


class Session:
    """Ticks, reports, snapshots and metrics around a trainer. All processes of a run hold one each."""

    def __init__(self, trainer: Trainer, recorder: Recorder, measured_set: ImageDataset):
        self.trainer, self.recorder, self.measured_set = trainer, recorder, measured_set
        self.cfg = trainer.cfg
        self.stop = StopRequest()
        self.watch = Stopwatch()
        self.tick = 0
        self.next_tick = 0.0  # images at which the current tick ends
        self.saved_step: int | None = None  # step of the newest training state
        self.last_snapshot: str | None = None  # network file of just this step

    def run(self, stop: StopRequest | None = None) -> str | None:
        """Trains until total_kimg, or until `stop` is requested: then saves the state and returns the signal's name."""
        self.stop, trainer = stop or self.stop, self.trainer
        with self._progress_bar() as bar:
            self._finish_measuring()
            while True:
                done = trainer.nimg >= self.cfg.total_kimg * 1000
                if trainer.nimg >= self.next_tick or (done and self.saved_step != trainer.step_count):
                    self._end_tick(done)
                if done:
                    return None
                if self.stop.agreed(trainer.device):
                    self.save_state()
                    return self.stop.requested or "a signal to another process"
                self.last_snapshot = None
                self._step()
                bar.update(min(trainer.nimg / 1000, self.cfg.total_kimg) - bar.n)

    def _step(self) -> None:
        trainer, interval = self.trainer, self.cfg.ema.posthoc_kimg
        before = trainer.nimg
        trainer.step()
        if interval is not None and trainer.nimg // (interval * 1000) > before // (interval * 1000):
            self._save_averages()

    def _save_averages(self) -> None:
        self.trainer.review()
        if self.trainer.nimg and not self.trainer.health.bad_steps:
            self.recorder.save_averages(self.trainer, self.measured_set)

    def _end_tick(self, done: bool) -> None:
        """Report and, where one is due, snapshot. The counters move first: a saved state continues after the tick."""
        self.watch.begin_maintenance()
        self._report()
        is_due = done or self.tick % self.cfg.snap == 0
        self.tick += 1
        self.next_tick = self.trainer.nimg + self.cfg.kimg_per_tick * 1000
        if is_due:
            self.snapshot()
        self.watch.end_maintenance()

    def _progress_bar(self) -> tqdm:
        return tqdm(
            total=self.cfg.total_kimg,
            initial=min(self.trainer.nimg / 1000, self.cfg.total_kimg),
            unit="kimg",
            bar_format="{percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} kimg, {elapsed} gone, {remaining} to go",
            disable=None if self.recorder.is_heard else True,  # None: only on a terminal
            leave=False,
            dynamic_ncols=True,
        )

    def _report(self) -> None:
        """The status line and one line of stats.jsonl."""
        watch, kimg = self.watch, self.trainer.nimg / 1000
        per_tick = watch.last_training
        per_kimg = per_tick / max(kimg - watch.last_kimg, 1e-9) if kimg > watch.last_kimg else 0.0
        watch.last_kimg = kimg
        cpu, gpu = memory_gib(self.trainer.device)
        stats, warning = self.trainer.end_tick(
            {
                "Progress/tick": self.tick,
                "Progress/kimg": kimg,
                "Timing/total_sec": watch.total,
                "Timing/sec_per_tick": per_tick,
                "Timing/sec_per_kimg": per_kimg,
                "Timing/maintenance_sec": watch.last_maintenance,
                "Resources/cpu_mem_gb": cpu,
                "Resources/peak_gpu_mem_gb": gpu,
            }
        )
        self.recorder.report(stats, self.trainer.nimg)
        if warning:
            self.recorder.say(warning)

    def snapshot(self) -> None:
        """Pictures, the network file, averages, the state to continue from, then the metrics and the report."""
        trainer = self.trainer
        self.last_snapshot = f"network-snapshot-{trainer.nimg // 1000:06d}.pkl"
        if not trainer.health.bad_steps:
            trainer.health.last_good = self.last_snapshot
        self.recorder.save_pictures(trainer)
        self.recorder.save_networks(trainer, self.last_snapshot, self.measured_set)
        if self.cfg.ema.posthoc_kimg is None or trainer.nimg >= self.cfg.total_kimg * 1000:
            self._save_averages()
        if not trainer.health.bad_steps:  # a run that has lost its way continues from before
            self.save_state(is_maintenance=True)
        if self.cfg.metrics:
            self._measure(self.cfg.metrics, self.last_snapshot)
        self.recorder.finish_snapshot()
        distributed.barrier()

    def _measure(self, names: list[str], snapshot: str) -> None:
        trainer, data, mirror = self.trainer, self.measured_set, self.cfg.data.mirror

        def heed(what: str, done: int, count: int) -> None:
            if self.stop.agreed(trainer.device):
                raise StopMeasuring

        try:
            results = compute_metrics(names, trainer.G_ema, data, device=trainer.device, mirror=mirror, progress=heed)
        except StopMeasuring:
            self.recorder.say(f"{', '.join(names)} of {snapshot} left unmeasured; calc_metrics.py can do it, too")
            return
        self.recorder.save_results(results, snapshot, trainer.nimg)

    def _finish_measuring(self) -> None:
        """Measures what a run that is continued had no time to measure at its last snapshot."""
        snapshot = self.last_snapshot
        if snapshot is None or not self.cfg.metrics:
            return
        missing = distributed.from_rank_0(lambda: self.recorder.unmeasured(self.cfg.metrics, snapshot))
        if missing:
            self._measure(missing, snapshot)
            self.recorder.finish_snapshot()

    # -- the state ------------------------------------------------------------------------------------------------

    def save_state(self, is_maintenance: bool = False) -> None:
        """Writes training-state.pt, unless this step has been saved already. All processes call this together."""
        if self.saved_step == self.trainer.step_count:
            return
        state = self.state(is_maintenance)
        self.saved_step = self.trainer.step_count
        self.recorder.save_state(state)

    def state(self, is_maintenance: bool = False) -> dict[str, Any]:
        """The trainer's state and the session's own."""
        return self.trainer.state() | self._own_state(is_maintenance)

    def _own_state(self, is_maintenance: bool = False) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _COUNTERS} | {"watch": self.watch.state(is_maintenance)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` gave. UserError if anything in it doesn't fit."""
        check_entries(state, self._own_state())
        self.trainer.load_state(state)
        self.watch.load_state(state["watch"])
        for name in _COUNTERS:
            setattr(self, name, state[name])
        self.saved_step = self.trainer.step_count
