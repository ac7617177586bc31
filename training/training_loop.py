"""The training loop: `done? -> report -> snapshot -> stop or step`, the same for its first, middle and last round."""

import copy
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from dnnlib.config import to_dict
from dnnlib.errors import UserError
from metrics import compute_metrics
from torch_utils import distributed
from torch_utils.training_stats import BatchMean, Collector
from training import networks
from training.augment.pipe import AugmentPipe
from training.config import TrainingConfig
from training.dataset import ImageDataset, open_dataset
from training.networks.shared.generator import Generator
from training.objectives.logistic import GanLoss, MicroBatch
from training.run.checkpoint import read_jsonl, save_state, thin_snapshots
from training.run.report.page import write_report
from training.run.run_folder import RunFolder
from training.run.sample_grid import SampleGrid
from training.step.clock import Stopwatch, memory_gib
from training.step.compilation import compile_first_order
from training.step.feed import Feed
from training.step.health import Health
from training.step.interrupt import StopMeasuring, StopRequest
from training.step.phases import Phase, build_phases, keyed_seed, sync_gradients
from training.step.precision import apply_precision


class Trainer:
    """Trains G and D on a data set. All processes of a run hold one each; the one of rank 0 has the run folder."""

    def __init__(self, cfg: TrainingConfig, dataset: ImageDataset, run: RunFolder | None, device: torch.device):
        self.cfg, self.dataset, self.run, self.device = cfg, dataset, run, device
        data = cfg.data
        self.measured_set = open_dataset(data.path, data.use_labels, data.max_size) if data.mirror else dataset
        self.stop = StopRequest()
        self.step_count = 0
        self.nimg = 0  # images seen so far; also the position in the training order
        self.tick = 0
        self.bad_gradients = 0
        self.health = Health()
        self.is_step_finite = True  # the losses of the current step so far
        self.feed = Feed(cfg, dataset, device)
        self.stats = Collector(device)
        self.means = BatchMean()
        self.pl_mean = torch.zeros([], device=device)
        self._build(cfg)
        self.watch = Stopwatch()
        self.next_tick = 0.0
        self.bar: tqdm | None = None
        self.saved_step: int | None = None  # step of the newest training state
        self.last_snapshot: str | None = None  # network file of just this step
        self.grid = SampleGrid.draw(dataset, self.G.z_dim, cfg.seed, run.file("reals.png")) if run else None

    # -- set-up ---------------------------------------------------------------------------------------------------

    def _build(self, cfg: TrainingConfig) -> None:
        torch.manual_seed(cfg.seed)
        self.G: Generator = networks.build(cfg.G).to(self.device)  # type: ignore[assignment]
        self.D = networks.build(cfg.D).to(self.device)
        self.G_ema: Generator = copy.deepcopy(self.G).eval().requires_grad_(False)
        self.augment = AugmentPipe(cfg.ada.pipe).to(self.device)
        self.augment.p.fill_(0.0 if cfg.ada.mode == "noaug" else cfg.ada.p)
        augment = self.augment if cfg.ada.mode != "noaug" else _identity
        self.loss = GanLoss(self.G, self.D, augment, cfg.loss, self.stats, self.means, self.pl_mean)
        self.phases = build_phases(cfg, self.G, self.D, self.loss)
        apply_precision(self.G, self.D, cfg)
        if cfg.nhwc:
            self.D.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if cfg.compile:
            compile_first_order(self.loss)

    # -- the loop -------------------------------------------------------------------------------------------------

    def train(self, stop: StopRequest | None = None) -> str | None:
        """Runs until total_kimg, or until `stop` is requested: then saves the state and returns the signal's name."""
        self.stop = stop = stop or self.stop
        with self._progress_bar():
            self._finish_measuring()
            while True:
                done = self.nimg >= self.cfg.total_kimg * 1000
                if self.nimg >= self.next_tick or (done and self.saved_step != self.step_count):
                    self._end_tick(done)
                if done:
                    return None
                if stop.agreed(self.device):
                    self._save_state()
                    return stop.requested or "a signal to another process"
                self.step()

    def _end_tick(self, done: bool) -> None:
        """Report and, where one is due, snapshot. The counters move first: a saved state continues after the tick."""
        self.watch.begin_maintenance()
        self._report()
        is_due = done or self.tick % self.cfg.snap == 0
        self.tick += 1
        self.next_tick = self.nimg + self.cfg.kimg_per_tick * 1000
        if is_due:
            self._snapshot()
        self.watch.end_maintenance()

    def step(self) -> None:
        """One batch: every phase that is due, then what follows from the whole batch."""
        self.is_step_finite, self.last_snapshot = True, None
        for index, phase in enumerate(self.phases):
            if self.step_count % phase.interval == 0:
                self._run_phase(index, phase)
        self._update_means()
        self._update_ema()
        self.step_count += 1
        self.nimg += self.cfg.batch
        self._adapt_augmentation()
        self.health.after_step(self.is_step_finite, self.nimg)
        if self.bar is not None:
            # The last batch may go beyond the end, which the bar would complain of.
            self.bar.update(min(self.cfg.batch / 1000, max(self.cfg.total_kimg - self.bar.n, 0)))

    def _run_phase(self, index: int, phase: Phase) -> None:
        phase.optimizer.zero_grad(set_to_none=True)
        phase.set_trainable(True)
        count = self.cfg.batch // self.cfg.micro_batch
        total = torch.zeros([], device=self.device)
        for micro in range(distributed.rank(), count, distributed.world_size()):
            torch.manual_seed(keyed_seed(self.cfg.seed, self.step_count, index, micro))
            batch = self._micro_batch(micro, phase.needs_reals)
            loss = phase.loss(batch) * (phase.interval / count)
            loss.backward()
            total += loss.detach()
        phase.set_trainable(False)
        self.is_step_finite &= bool(distributed.all_sum(total).isfinite())
        self.bad_gradients += sync_gradients(phase.parameters)
        phase.update(self.nimg)

    def _micro_batch(self, micro: int, needs_reals: bool) -> MicroBatch:
        """Micro-batch `micro` of this step. Labels to generate for are those of images drawn at random."""
        n = self.cfg.micro_batch
        if self.dataset.label_dim:
            drawn = torch.randint(len(self.dataset), [n])
            gen_c = self.dataset.labels(drawn.numpy()).to(self.device)
        else:
            gen_c = torch.zeros([n, 0], device=self.device)
        if not needs_reals:
            return MicroBatch(gen_c)
        images, labels = self.feed.get(self.nimg, micro)
        return MicroBatch(gen_c, images.float() / 127.5 - 1, labels)

    def _update_means(self) -> None:
        w = self.means.take("w")
        if w is not None:
            self.G.mapping.update_w_avg(w)
        length = self.means.take("pl_length")
        if length is not None:
            self.pl_mean.lerp_(length.squeeze(0), self.cfg.loss.pl_decay)

    @torch.no_grad()
    def _update_ema(self) -> None:
        half_life = self.cfg.ema.half_life_images(self.nimg, self.cfg.batch)
        beta = 0.5 ** (self.cfg.batch / max(half_life, 1e-8))
        torch._foreach_lerp_(list(self.G_ema.parameters()), list(self.G.parameters()), 1 - beta)
        for ema, now in zip(self.G_ema.buffers(), self.G.buffers()):
            ema.copy_(now)

    def _adapt_augmentation(self) -> None:
        """Moves p so that the mean sign of D(real) approaches the target (section 3 of the ADA paper)."""
        ada = self.cfg.ada
        if ada.mode != "ada" or self.step_count % ada.interval:
            return
        sign = self.means.take("sign_real")
        if sign is None:
            return
        step = np.sign(float(sign) - ada.target) * self.cfg.batch * ada.interval / (ada.speed_kimg * 1000)
        p = max(float(self.augment.p) + step, 0.0)
        self.augment.p.fill_(min(p, ada.p_max) if ada.p_max is not None else p)

    # -- what the user sees ---------------------------------------------------------------------------------------

    def _progress_bar(self) -> tqdm:
        quiet = self.run is None
        self.bar = tqdm(
            total=self.cfg.total_kimg,
            initial=self.nimg / 1000,
            unit="kimg",
            bar_format="{percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} kimg, {elapsed} gone, {remaining} to go",
            disable=True if quiet else None,  # None: only on a terminal
            leave=False,
            dynamic_ncols=True,
        )
        return self.bar

    def _report(self) -> None:
        """The status line and one line of stats.jsonl."""
        kimg = self.nimg / 1000
        per_tick = self.watch.last_training
        per_kimg = per_tick / max(kimg - self.watch.last_kimg, 1e-9) if kimg > self.watch.last_kimg else 0.0
        self.watch.last_kimg = kimg
        cpu, gpu = memory_gib(self.device)
        p = float(self.augment.p)
        values = {
            "Progress/tick": self.tick,
            "Progress/kimg": kimg,
            "Progress/augment": p,
            "Progress/nonfinite_gradients": self.bad_gradients,
            "Timing/total_sec": self.watch.total,
            "Timing/sec_per_tick": per_tick,
            "Timing/sec_per_kimg": per_kimg,
            "Timing/maintenance_sec": self.watch.last_maintenance,
            "Resources/cpu_mem_gb": cpu,
            "Resources/peak_gpu_mem_gb": gpu,
        }
        for name, value in values.items():
            self.stats.report(name, value)
        stats = self.stats.take()
        warning = self.health.after_tick(stats, self.cfg, p)
        if self.run is None:
            return
        self.run.add_stats(stats, self.nimg)
        self.run.say(
            f"tick {self.tick:<5d} kimg {kimg:<8.1f} time {_duration(self.watch.total):<12s} "
            f"sec/tick {per_tick:<7.1f} sec/kimg {per_kimg:<7.2f} maintenance {self.watch.last_maintenance:<6.1f} "
            f"cpumem {cpu:<6.2f} gpumem {gpu:<6.2f} augment {p:.3f}"
        )
        if warning:
            self.run.say(warning)

    def _snapshot(self) -> None:
        """Pictures, the network file, the state to continue from, then the metrics and the report."""
        kimg = self.nimg // 1000
        self.last_snapshot = f"network-snapshot-{kimg:06d}.pkl"
        if not self.health.bad_steps:
            self.health.last_good = self.last_snapshot
        if self.run is not None:
            self._save_pictures(self.run)
            networks.save(
                self.run.file(self.last_snapshot),
                {"G": self.G, "D": self.D, "G_ema": self.G_ema, "augment_pipe": self.augment},
                training_config=self.cfg,
                training_set_kwargs=to_dict(self.cfg.data)
                | {"num_images": len(self.measured_set), "labels": self.measured_set.label_examples()},
                provenance={"kimg": self.nimg / 1000},
            )
        if not self.health.bad_steps:  # a run that has lost its way continues from before
            self._save_state(is_maintenance=True)
        if self.cfg.metrics:
            self._measure(self.cfg.metrics, self.last_snapshot)
        if self.run is not None:
            if self.cfg.keep_snapshots is not None:
                thin_snapshots(self.run.path, self.cfg.keep_snapshots)
            write_report(self.run.path)
        distributed.barrier()

    def _save_pictures(self, run: RunFolder) -> None:
        assert self.grid is not None
        name = "fakes_init.png" if self.nimg == 0 else f"fakes{self.nimg // 1000:06d}.png"
        found = self.grid.save(self.G_ema, run.file(name))
        warning = self.health.after_pictures(found / max(self.grid.real_diversity, 1e-9), self.nimg)
        if warning:
            run.say(warning)

    def _measure(self, names: list[str], snapshot: str) -> None:
        def heed(what: str, done: int, count: int) -> None:
            if self.stop.agreed(self.device):
                raise StopMeasuring

        data, mirror = self.measured_set, self.cfg.data.mirror
        try:
            results = compute_metrics(names, self.G_ema, data, device=self.device, mirror=mirror, progress=heed)
        except StopMeasuring:
            if self.run is not None:
                self.run.say(f"{', '.join(names)} of {snapshot} left unmeasured; calc_metrics.py can do it, too")
            return
        if self.run is None:
            return
        for result in results:
            result.append_to(self.run.path, snapshot)
            self.run.track({f"Metrics/{name}": value for name, value in result.results.items()}, self.nimg)
            self.run.say(_metric_line(result.results))

    def _finish_measuring(self) -> None:
        """Measures what a run that is continued had no time to measure at its last snapshot."""
        snapshot = self.last_snapshot
        if snapshot is None or not self.cfg.metrics:
            return
        missing = distributed.from_rank_0(lambda: self._unmeasured(snapshot))
        if missing:
            self._measure(missing, snapshot)

    def _unmeasured(self, snapshot: str) -> list[str]:
        """Metrics without a value for `snapshot`; the others' lines, dropped from the log, are said again."""
        assert self.run is not None
        missing = []
        for name in self.cfg.metrics:
            lines = read_jsonl(self.run.file(f"metric-{name}.jsonl"))
            found = next((line["results"] for line in lines if line["snapshot_pkl"] == snapshot), None)
            if found is None:
                missing.append(name)
            else:
                self.run.say(_metric_line(found))
        return missing

    # -- the state ------------------------------------------------------------------------------------------------

    def _save_state(self, is_maintenance: bool = False) -> None:
        """Writes training-state.pt, unless this step has been saved already. All processes call this together."""
        if self.saved_step == self.step_count:
            return
        state = self.state(is_maintenance)
        self.saved_step = self.step_count
        if self.run is not None:
            save_state(self.run.path, state | {"log_sizes": self.run.log_sizes()})

    def state(self, is_maintenance: bool = False) -> dict[str, Any]:
        """Everything that training goes on from, as plain data; needs no random generators, whose draws are keyed."""
        return {
            "modules": {name: module.state_dict() for name, module in self._modules().items()},
            "optimizers": {name: o.state_dict()["state"] for name, o in self._optimizers().items()},
            "pl_mean": self.pl_mean,
            "stats": self.stats.state(),
            "means": self.means.state(),
            "watch": self.watch.state(is_maintenance),
            "health": self.health.state(),
            **{name: getattr(self, name) for name in _COUNTERS},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` gave. UserError if the networks differ from those that were saved."""
        for name, module in self._modules().items():
            try:
                module.load_state_dict(state["modules"][name])
            except RuntimeError as e:
                raise UserError(f"the run's {name} is another network: {' '.join(str(e).split())[:300]}") from e
        for name, optimizer in self._optimizers().items():
            optimizer.load_state_dict(optimizer.state_dict() | {"state": state["optimizers"][name]})
        self.pl_mean.copy_(state["pl_mean"])
        self.stats.load_state(state["stats"])
        self.means.load_state(state["means"], self.device)
        self.watch.load_state(state["watch"])
        self.health = Health(**state["health"])
        for name in _COUNTERS:
            setattr(self, name, state[name])
        self.saved_step = self.step_count

    def _modules(self) -> dict[str, torch.nn.Module]:
        return {"G": self.G, "D": self.D, "G_ema": self.G_ema, "augment_pipe": self.augment}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """By network; its phases share one."""
        names = {id(self.G): "G", id(self.D): "D"}
        return {names[id(phase.module)]: phase.optimizer for phase in self.phases}


_COUNTERS = ("step_count", "nimg", "tick", "next_tick", "bad_gradients", "last_snapshot")


def _metric_line(results: dict[str, float]) -> str:
    return f"{'':10s} " + ", ".join(f"{name} {value:.5g}" for name, value in results.items())


def _identity(x: torch.Tensor) -> torch.Tensor:
    return x


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
