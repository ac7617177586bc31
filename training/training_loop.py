"""The trainer: one step after another, and the state to go on from. It knows no files and prints nothing (session.py).

A micro-batch is the unit of work: every random draw is keyed by (seed, step, phase, micro-batch), so that accumulation,
any number of processes and a resumed run train the same.
"""

import copy
from typing import Any

import torch

from torch_utils import distributed
from torch_utils.training_stats import BatchMean, Collector, Stats
from training import networks
from training.augment.diffaugment import DiffAugment
from training.augment.draw import Augmentation, NoAugmentation
from training.augment.pipe import AugmentPipe
from training.config import TrainingConfig
from training.dataset import ImageDataset
from training.ema.averages import PowerAverages
from training.networks.shared.discriminator import Discriminator
from training.networks.shared.generator import Generator
from training.objectives.base import MicroBatch, PhaseSpec, objective_class
from training.run.optimizer_state import load_optimizer_state, optimizer_state
from training.run.state_checks import check_state
from training.schedule import Ramp, at, ramps
from training.step.compilation import compile_first_order
from training.step.feed import Feed
from training.step.gradients import keyed_seed, sync_gradients
from training.step.health import Health
from training.step.players import Player
from training.step.precision import apply_precision, is_channels_last

_COUNTERS = ("step_count", "nimg", "bad_gradients")
_REVIEW_STEPS = 16  # between looks at what the device found: each makes the host wait for it


class Trainer:
    """Trains G and D on a data set. All processes of a run hold one each and step together."""

    def __init__(self, cfg: TrainingConfig, dataset: ImageDataset, device: torch.device):
        self.cfg, self.dataset, self.device = cfg, dataset, device
        self.step_count = 0
        self.nimg = 0  # images seen so far; also the position in the training order
        self.bad_gradients = 0  # gradient values that were not finite
        self.health = Health()
        self._are_finite: list[torch.Tensor] = []  # per step that has not been reviewed: were its losses all finite?
        self._finite_losses: list[torch.Tensor] = []  # per phase of the current step
        self._bad_gradients = torch.zeros([], dtype=torch.int64, device=device)  # of these steps
        self.feed = Feed(cfg, dataset, device)
        self.stats = Collector(device)
        self.means = BatchMean()
        self._build(cfg)

    def _build(self, cfg: TrainingConfig) -> None:
        torch.manual_seed(cfg.seed)
        self.G: Generator = networks.build(cfg.G).to(self.device)  # type: ignore[assignment]
        self.D: Discriminator = networks.build(cfg.D).to(self.device)  # type: ignore[assignment]
        self.G_ema: Generator = copy.deepcopy(self.G).eval().requires_grad_(False)
        self.averages = PowerAverages(self.G, cfg.ema.posthoc)
        self.augment = AugmentPipe(cfg.ada.pipe).to(self.device)
        is_piped = cfg.ada.mode in ("ada", "fixed")
        self.augment.p.fill_(at(cfg.ada.p, 0) if is_piped else 0.0)
        others: dict[str, Augmentation] = {"noaug": NoAugmentation(), "diffaug": DiffAugment(cfg.ada.diffaug)}
        augment: Augmentation = self.augment if is_piped else others[cfg.ada.mode]
        self.objective = objective_class(cfg.loss)(cfg.loss, self.G, self.D, augment, self.stats, self.means)
        self.phases = self.objective.phases()
        self.players = {
            "G": Player.of(self.G, cfg.G_opt, self.objective.lazy_interval("G")),
            "D": Player.of(self.D, cfg.D_opt, self.objective.lazy_interval("D")),
        }
        apply_precision(self.G, self.D, cfg)
        if is_channels_last(cfg, self.device):
            for network in (self.G, self.D):
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if cfg.compile:
            compile_first_order(self.objective)

    # -- one step -------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """One batch: every phase that is due, then what follows from the whole batch."""
        self._finite_losses.clear()
        self.objective.nimg = self.nimg
        if isinstance(self.cfg.ada.p, Ramp):
            self.augment.p.fill_(at(self.cfg.ada.p, self.nimg))
        for index, phase in enumerate(self.phases):
            if self.step_count % phase.interval == 0:
                self._run_phase(index, phase)
        self.objective.after_step()
        self._update_ema()
        self.step_count += 1
        self.nimg += self.cfg.batch
        self._adapt_augmentation()
        self._are_finite.append(torch.stack(self._finite_losses).all())
        if self.step_count % _REVIEW_STEPS == 0:
            self.review()

    def _run_phase(self, index: int, phase: PhaseSpec) -> None:
        player = self.players[phase.player]
        player.optimizer.zero_grad(set_to_none=True)
        player.set_trainable(True)
        count = self.cfg.batch // self.cfg.micro_batch
        total = torch.zeros([], device=self.device)
        for micro in range(distributed.rank(), count, distributed.world_size()):
            torch.manual_seed(keyed_seed(self.cfg.seed, self.step_count, index, micro))
            batch = self._micro_batch(micro, phase.needs_reals)
            loss = phase.loss(batch) * (phase.interval / count)
            loss.backward()
            total += loss.detach()
        player.set_trainable(False)
        self._finite_losses.append(distributed.all_sum(total).isfinite())
        self._bad_gradients += sync_gradients(player.parameters)
        player.update(self.nimg, clip=not phase.lazy)

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
        return MicroBatch(gen_c, self.G.space.to_network(images), labels)

    def review(self) -> None:
        """Looks at what the steps since the last review came to. UserError once losses have stayed non-finite."""
        if not self._are_finite:
            return
        found = torch.stack(self._are_finite).tolist()
        self._are_finite.clear()
        self.bad_gradients += int(self._bad_gradients)
        self._bad_gradients.zero_()
        for steps_ago, is_finite in zip(reversed(range(len(found))), found):
            self.health.after_step(is_finite, self.nimg - steps_ago * self.cfg.batch)

    @torch.no_grad()
    def _update_ema(self) -> None:
        half_life = self.cfg.ema.half_life_images(self.nimg, self.cfg.batch)
        beta = 0.5 ** (self.cfg.batch / max(half_life, 1e-8))
        torch._foreach_lerp_(list(self.G_ema.parameters()), list(self.G.parameters()), 1 - beta)
        for ema, now in zip(self.G_ema.buffers(), self.G.buffers()):
            ema.copy_(now)
        self.averages.update(self.G, self.nimg, self.nimg + self.cfg.batch)

    def _adapt_augmentation(self) -> None:
        """Moves p so that the mean sign of D(real) approaches the target (section 3 of the ADA paper)."""
        ada = self.cfg.ada
        if ada.mode != "ada" or self.step_count % ada.interval:
            return
        sign = self.means.take("sign_real")
        if sign is None:
            return
        step = self.cfg.batch * ada.interval / (ada.speed_kimg * 1000)
        p = self.augment.p.double() + (sign.double() - ada.target).sign() * step
        self.augment.p.copy_(p.clamp(0.0, ada.p_max).squeeze())

    # -- figures --------------------------------------------------------------------------------------------------

    def end_tick(self, values: dict[str, float]) -> tuple[Stats, str | None]:
        """Statistics since the last tick together with `values`, and a warning where the run goes astray."""
        self.review()
        own = {"Progress/augment": float(self.augment.p), "Progress/nonfinite_gradients": self.bad_gradients}
        scheduled = {f"Schedule/{name}": at(ramp, self.nimg) for name, ramp in ramps(self.cfg)}
        for name, value in (own | scheduled | values).items():
            self.stats.report(name, value)
        stats = self.stats.take()
        return stats, self.health.after_tick(self.objective.certainty(stats), self.cfg, float(self.augment.p))

    # -- the state ------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything that training goes on from, as plain data; needs no random generators, whose draws are keyed."""
        self.review()
        return {
            "modules": {name: module.state_dict() for name, module in self.modules().items()},
            "optimizers": {name: optimizer_state(p.optimizer, p.module) for name, p in self.players.items()},
            "objective": self.objective.state(),
            "stats": self.stats.state(),
            "means": self.means.state(),
            "health": self.health.state(),
            **({"averages": self.averages.state()} if self.averages.modules else {}),
            **{name: getattr(self, name) for name in _COUNTERS},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` gave. UserError if anything in it doesn't fit this trainer."""
        self.averages.check(state.get("averages"))
        check_state(state, self.state())
        for name, player in self.players.items():
            saved = state["optimizers"][name]
            load_optimizer_state(player.optimizer, player.module, saved, f"the optimiser of {name}")
        for name, module in self.modules().items():
            module.load_state_dict(state["modules"][name])
        self.averages.load_state(state.get("averages"))
        self.objective.load_state(state["objective"])
        self.stats.load_state(state["stats"])
        self.means.load_state(state["means"], self.device)
        self.health = Health(**state["health"])
        for name in _COUNTERS:
            setattr(self, name, state[name])

    def modules(self) -> dict[str, torch.nn.Module]:
        """What a network file holds of a run, by name."""
        return {"G": self.G, "D": self.D, "G_ema": self.G_ema, "augment_pipe": self.augment}
