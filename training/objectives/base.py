"""What an objective is: losses on micro-batches, in phases, and what follows from a whole batch.

A new one is a config dataclass derived from `ObjectiveConfig` and a class derived from `Objective`, joined by
`@register_objective`; `--set loss.kind=NAME` or a preset chooses it. The trainer names no loss.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from dnnlib.config import Tagged, register_kind
from dnnlib.errors import ConfigError
from torch_utils.training_stats import BatchMean, Collector, Stats
from training.augment.draw import Augmentation
from training.networks.registry import DiscriminatorConfig, GeneratorConfig
from training.networks.shared.discriminator import Discriminator
from training.networks.shared.generator import Generator

Images = list[torch.Tensor]  # a generator's output levels [N, C, H, W], coarsest first; mostly just one
Curve = tuple[str, dict[str, str], str]  # of the report: title, legend -> statistic, how to read it


@dataclass
class MicroBatch:
    """The inputs of one loss evaluation."""

    gen_c: torch.Tensor  # [N, c_dim] labels to generate for
    real: torch.Tensor | None = None  # [N, C, H, W] as the networks see them, for phases that need reals
    real_c: torch.Tensor | None = None  # [N, c_dim]

    def __len__(self) -> int:
        return len(self.gen_c)


@dataclass
class ObjectiveConfig(Tagged):
    """Base of the objectives' configs."""

    gamma_field: ClassVar[str | None] = None  # the field that --gamma sets

    def check(self, G: GeneratorConfig, D: DiscriminatorConfig) -> None:
        """UserError where the objective doesn't go with these networks."""

    def check_levels(self, G: Generator) -> None:
        """UserError where it doesn't go with the output levels of this generator, which is on the meta device."""


@dataclass(frozen=True)
class PhaseSpec:
    """One kind of optimisation step."""

    name: str
    player: Literal["G", "D"]  # whose parameters are stepped
    loss: Callable[[MicroBatch], torch.Tensor]  # mean loss of a micro-batch
    interval: int = 1  # batches between two steps; the loss is scaled by it
    needs_reals: bool = False
    lazy: bool = False  # a regulariser beside a main phase: its gradient is not clipped


@dataclass
class FirstOrder:
    """What the losses call where they differentiate once; training.step.compilation puts compiled forms here."""

    levels: Callable[..., Images]
    D: Callable[..., torch.Tensor]


class Objective:
    """Base class. A subclass provides `phases`; what has to be averaged over the whole batch goes into `means`."""

    curves: ClassVar[Sequence[Curve]] = ()  # of the report, besides time and memory

    def __init__(
        self,
        cfg: Any,  # its config
        G: Generator,
        D: Discriminator,
        augment: Augmentation,  # applied to whatever D sees
        stats: Collector,
        means: BatchMean,
    ):
        self.cfg, self.G, self.D, self.augment, self.stats, self.means = cfg, G, D, augment, stats, means
        self.first_order = FirstOrder(G.levels, D)
        self.nimg = 0  # images before the current step: what schedules are read at

    # -- what the trainer asks for --------------------------------------------------------------------------------

    def phases(self) -> list[PhaseSpec]:
        """The phases in the order in which a step runs them."""
        raise NotImplementedError

    def lazy_interval(self, player: str) -> int | None:
        """Batches between the lazy phases of "G" or "D", for which its optimiser is corrected; None: there are none."""
        return next((p.interval for p in self.phases() if p.lazy and p.player == player), None)

    def after_step(self) -> None:
        """What follows from the means of a whole batch: at least the average style."""
        w = self.means.take("w")
        if w is not None:
            self.G.mapping.update_w_avg(w)

    def state(self) -> dict[str, torch.Tensor]:
        """What training goes on from, besides networks and optimisers."""
        return {}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Goes on from what `state` gave."""

    def certainty(self, stats: Stats) -> float:
        """How surely D tells reals from fakes, by the statistics of a tick: from 0, a guess, to 1, always."""
        return 0.0

    # -- for subclasses -------------------------------------------------------------------------------------------

    def generate(self, c: torch.Tensor, style_mixing: float = 0.0, record_w: bool = False) -> Images:
        """Fakes for labels [N, c_dim] from fresh latents. With `record_w` their styles count for the average style."""
        z = torch.randn([len(c), self.G.z_dim], device=c.device)
        ws = self.G.mixed_styles(z, c, style_mixing)
        w_avg = getattr(self.G.mapping, "w_avg", None)
        if record_w and w_avg is not None:
            # The first style always comes from the first latent, mixed or not.
            per_class = w_avg.ndim == 2
            classes = c.argmax(1) if c.shape[1] else c.new_zeros(len(c), dtype=torch.long)
            self.means.add("w", ws[:, 0], classes if per_class else None, len(w_avg) if per_class else 1)
        return self.first_order.levels(ws, noise_mode="random")

    def run_D(self, images: Images, c: torch.Tensor | None, once: bool = True) -> torch.Tensor:
        """Logits [N, 1] of augmented images; all levels share one draw. `once`: nobody differentiates this twice."""
        draw = self.augment.draw(images[-1])
        return self.judge([draw.apply(x) for x in images], c, once)

    def judge(self, images: Images, c: torch.Tensor | None, once: bool = True) -> torch.Tensor:
        """Logits [N, 1] of images as they are."""
        D = self.first_order.D if once else self.D
        return D(images if self.D.takes_levels else images[-1], c)

    def report_scores(self, what: str, logits: torch.Tensor) -> None:
        """Mean logit and mean sign, for the report."""
        self.stats.report(f"Loss/scores/{what}", logits)
        self.stats.report(f"Loss/signs/{what}", logits.sign())


_classes: dict[type[ObjectiveConfig], type[Objective]] = {}


def register_objective(kind: str, config_class: type[ObjectiveConfig]) -> Callable[[type[Objective]], type[Objective]]:
    """Class decorator: `loss.kind=KIND` chooses `config_class`, which builds the decorated objective."""

    def decorate(objective: type[Objective]) -> type[Objective]:
        register_kind(ObjectiveConfig, kind, config_class)
        _classes[config_class] = objective
        return objective

    return decorate


def objective_class(cfg: ObjectiveConfig) -> type[Objective]:
    """The class that a config builds. Raises ConfigError where none is registered."""
    if type(cfg) not in _classes:
        raise ConfigError(f"no objective is registered for {type(cfg).__name__}")
    return _classes[type(cfg)]


def curves_of(kind: str) -> Sequence[Curve]:
    """The report's curves of an objective; those of all where `kind` is not known here (a plug-in's old run)."""
    known = ObjectiveConfig.kinds
    chosen = [known[kind]] if kind in known else list(known.values())
    found = [curve for cfg in chosen for curve in _classes[cfg].curves]
    return [curve for i, curve in enumerate(found) if curve not in found[:i]]
