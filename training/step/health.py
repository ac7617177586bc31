"""Watches a run: stops it when its losses stay non-finite, warns when the discriminator or the generator fails."""

from dataclasses import dataclass, field

import torch

from dnnlib.errors import UserError
from training.config import TrainingConfig

NONFINITE_STEPS = 50  # so many steps in a row end the run
_CERTAIN = 0.95  # mean sign of D on reals (and minus that on fakes) from which it knows them all
_OVERFIT_TICKS = 5  # so many ticks in a row
_COLLAPSED = 0.1  # diversity of samples relative to the reals'
_YOUNG = 20_000  # images before which little diversity is normal


@dataclass
class Health:
    """What is remembered between steps; every process comes to the same conclusions."""

    bad_steps: int = 0  # steps in a row with a loss that was not finite
    last_good: str | None = None  # the newest snapshot written while losses were finite
    overfit_ticks: int = 0
    warned: list[str] = field(default_factory=list)  # each warning comes once

    def state(self) -> dict:
        """Plain data for the training state."""
        return dict(vars(self))

    def after_step(self, is_finite: bool, nimg: int) -> None:
        """UserError once the losses have stayed non-finite for long."""
        self.bad_steps = 0 if is_finite else self.bad_steps + 1
        if self.bad_steps < NONFINITE_STEPS:
            return
        good = f"the last good snapshot is {self.last_good}" if self.last_good else "there is no good snapshot"
        raise UserError(
            f"the losses have not been finite for {NONFINITE_STEPS} steps (at kimg {nimg / 1000:.1f}); {good}. "
            "Lower the learning rates (--set G_opt.lr=..., D_opt.lr=...) or raise --gamma, "
            "and start from that snapshot with --resume"
        )

    def after_tick(self, certainty: float, cfg: TrainingConfig, p: float) -> str | None:
        """A warning if D tells reals from fakes nearly always, tick after tick; `certainty` is the objective's."""
        self.overfit_ticks = self.overfit_ticks + 1 if certainty > _CERTAIN else 0
        if self.overfit_ticks < _OVERFIT_TICKS:
            return None
        return self._once(
            "overfit",
            f"warning: the discriminator tells reals from fakes nearly always (mean sign {certainty:.2f} or more, "
            f"{_OVERFIT_TICKS} ticks in a row), so the generator learns little. {_advice(cfg, p)}",
        )

    def after_pictures(self, share: float, nimg: int) -> str | None:
        """A warning if samples are all alike: their diversity is only `share` of the reals'."""
        if nimg < _YOUNG or share >= _COLLAPSED:
            return None
        return self._once(
            "collapse",
            f"warning: the samples are nearly all alike (their spread is {share:.1%} of the data's): the generator has "
            "collapsed. Go back to an earlier snapshot with --resume, and try a higher --gamma or a lower learning "
            "rate of D (--set D_opt.lr=...)",
        )

    def _once(self, name: str, text: str) -> str | None:
        if name in self.warned:
            return None
        self.warned.append(name)
        return text


def diversity(images: torch.Tensor) -> float:
    """Mean over pixels of the standard deviation over images [N, C, H, W]."""
    return float(images.float().std(dim=0).mean())


def _advice(cfg: TrainingConfig, p: float) -> str:
    if cfg.ada.mode == "noaug":
        return "Try --aug=ada, a higher --gamma, or more data (--mirror=1)"
    if cfg.ada.mode == "fixed":
        return f"Try --aug=ada instead of a fixed p = {p:.2f}, a higher --gamma, or more data"
    return f"Augmentation stands at p = {p:.2f}: give it time, or try a higher --gamma or more data (--mirror=1)"
