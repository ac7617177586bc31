"""The training loop: `done? -> report -> snapshot -> stop or step`, the same for its first, middle and last round."""

import copy

import numpy as np
import torch
from tqdm import tqdm

from dnnlib.config import to_dict
from metrics import compute_metrics
from torch_utils import distributed
from torch_utils.training_stats import BatchMean, Collector
from training import networks
from training.augment import AugmentPipe
from training.config import TrainingConfig
from training.dataset import ImageDataset, open_dataset, sample_order
from training.loss import GanLoss, MicroBatch
from training.networks.generator import Generator
from training.phases import Phase, build_phases, keyed_seed, sync_gradients
from training.pictures import grid_size, save_grid, to_uint8
from training.resources import Stopwatch, memory_gib
from training.run_folder import RunFolder


class Trainer:
    """Trains G and D on a data set. All processes of a run hold one each; the one of rank 0 has the run folder."""

    def __init__(self, cfg: TrainingConfig, dataset: ImageDataset, run: RunFolder | None, device: torch.device):
        self.cfg, self.dataset, self.run, self.device = cfg, dataset, run, device
        data = cfg.data
        self.measured_set = open_dataset(data.path, data.use_labels, data.max_size) if data.mirror else dataset
        self.step_count = 0
        self.nimg = 0  # images seen so far; also the position in the training order
        self.tick = 0
        self.bad_gradients = 0
        self.stats = Collector(device)
        self.means = BatchMean()
        self.pl_mean = torch.zeros([], device=device)
        self._build(cfg)
        self.watch = Stopwatch()
        self.next_tick = 0.0
        self.bar: tqdm | None = None
        self.grid = self._latent_grid() if run else None

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
        if cfg.nhwc:
            self.D.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    # -- the loop -------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Runs until total_kimg."""
        with self._progress_bar():
            while True:
                done = self.nimg >= self.cfg.total_kimg * 1000
                if done or self.nimg >= self.next_tick:
                    self._report()
                    if done or self.tick % self.cfg.snap == 0:
                        self._snapshot()
                    self.tick += 1
                    self.next_tick = self.nimg + self.cfg.kimg_per_tick * 1000
                    self.watch.end_maintenance()
                if done:
                    return
                self.step()

    def step(self) -> None:
        """One batch: every phase that is due, then what follows from the whole batch."""
        for index, phase in enumerate(self.phases):
            if self.step_count % phase.interval == 0:
                self._run_phase(index, phase)
        self._update_means()
        self._update_ema()
        self.step_count += 1
        self.nimg += self.cfg.batch
        self._adapt_augmentation()
        if self.bar is not None:
            self.bar.update(self.cfg.batch / 1000)

    def _run_phase(self, index: int, phase: Phase) -> None:
        phase.optimizer.zero_grad(set_to_none=True)
        phase.set_trainable(True)
        count = self.cfg.batch // self.cfg.micro_batch
        for micro in range(distributed.rank(), count, distributed.world_size()):
            torch.manual_seed(keyed_seed(self.cfg.seed, self.step_count, index, micro))
            batch = self._micro_batch(micro, phase.needs_reals)
            (phase.loss(batch) * (phase.interval / count)).backward()
        phase.set_trainable(False)
        self.bad_gradients += sync_gradients(phase.parameters)
        phase.update(self.nimg)

    def _micro_batch(self, micro: int, needs_reals: bool) -> MicroBatch:
        """Micro-batch `micro` of this step. Labels to generate for are those of images drawn at random."""
        n = self.cfg.micro_batch
        if self.dataset.label_dim:
            drawn = torch.randint(len(self.dataset), [n])
            gen_c = self.dataset.load(drawn.numpy())[1].to(self.device)
        else:
            gen_c = torch.zeros([n, 0], device=self.device)
        if not needs_reals:
            return MicroBatch(gen_c)
        order = sample_order(self.cfg.seed, self.nimg + micro * n, n, len(self.dataset))
        images, labels = self.dataset.load(order)
        real = images.to(self.device).float() / 127.5 - 1
        return MicroBatch(gen_c, real, labels.to(self.device))

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
        self.watch.begin_maintenance()
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
        if self.run is None:
            return
        self.run.add_stats(stats, self.nimg)
        self.run.say(
            f"tick {self.tick:<5d} kimg {kimg:<8.1f} time {_duration(self.watch.total):<12s} "
            f"sec/tick {per_tick:<7.1f} sec/kimg {per_kimg:<7.2f} maintenance {self.watch.last_maintenance:<6.1f} "
            f"cpumem {cpu:<6.2f} gpumem {gpu:<6.2f} augment {p:.3f}"
        )

    def _snapshot(self) -> None:
        """Pictures, the network file, the metrics."""
        kimg = self.nimg // 1000
        name = f"network-snapshot-{kimg:06d}.pkl"
        if self.run is not None:
            self._save_pictures(self.run, kimg)
            networks.save(
                self.run.file(name),
                {"G": self.G, "D": self.D, "G_ema": self.G_ema, "augment_pipe": self.augment},
                training_config=self.cfg,
                training_set_kwargs=to_dict(self.cfg.data),
                provenance={"kimg": self.nimg / 1000},
            )
        if self.cfg.metrics:
            self._measure(name)
        distributed.barrier()

    def _measure(self, snapshot: str) -> None:
        results = compute_metrics(
            self.cfg.metrics, self.G_ema, self.measured_set, device=self.device, mirror=self.cfg.data.mirror
        )
        if self.run is None:
            return
        for result in results:
            result.append_to(self.run.path, snapshot)
            values = ", ".join(f"{name} {value:.5g}" for name, value in result.results.items())
            self.run.say(f"{'':10s} {values}")

    def _latent_grid(self) -> tuple[torch.Tensor, torch.Tensor, int, int]:
        """Fixed latents and labels of the picture grids; writes reals.png for the same labels."""
        assert self.run is not None
        _, h, w = self.dataset.image_shape
        rows, columns = grid_size(h, w, len(self.dataset))
        rnd = np.random.RandomState(self.cfg.seed)
        images, labels = self.dataset.load(rnd.permutation(len(self.dataset))[: rows * columns])
        save_grid(images, self.run.file("reals.png"), rows, columns)
        z = torch.from_numpy(rnd.randn(rows * columns, self.G.z_dim)).float()
        return z, labels, rows, columns

    @torch.no_grad()
    def _save_pictures(self, run: RunFolder, kimg: int) -> None:
        assert self.grid is not None
        z, c, rows, columns = self.grid
        parts = zip(z.to(self.device).split(16), c.to(self.device).split(16))
        images = torch.cat([self.G_ema(zz, cc, noise_mode="const").cpu() for zz, cc in parts])
        name = "fakes_init.png" if self.nimg == 0 else f"fakes{kimg:06d}.png"
        save_grid(to_uint8(images), run.file(name), rows, columns)


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
