"""StyleGAN2's objective, with bCR: the logistic loss (Goodfellow et al. 2014, the non-saturating form), R1 and path
length regularisation in lazy phases, style mixing."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from dnnlib.config import Count, Share, Weight
from dnnlib.errors import UserError
from torch_utils.training_stats import Stats
from training.augment import consistency
from training.networks.registry import DiscriminatorConfig, GeneratorConfig
from training.networks.shared.pixel_units import ValueRange, check_units, from_units, to_units
from training.objectives.base import Images, MicroBatch, Objective, ObjectiveConfig, PhaseSpec, register_objective
from training.objectives.penalties import gradient_penalty, path_length
from training.schedule import Value, at


@dataclass
class LogisticConfig(ObjectiveConfig):
    """Non-saturating logistic loss and its regularisers."""

    gamma_field: ClassVar[str | None] = "r1_gamma"

    r1_gamma: Value = 10.0  # weight of the R1 gradient penalty (Mescheder et al. 2018)
    r1_interval: Count = 16  # batches between R1 steps (lazy regularisation)
    pl_weight: Weight = 2.0  # weight of the path length penalty, 0: off (Karras et al. 2020, section 3.2)
    pl_interval: Count | None = 4  # batches between path length steps; Adam is corrected for it even without a penalty
    pl_decay: Share = 0.01  # of the running mean length
    pl_batch_shrink: Count = 2  # the penalty sees 1/so many of a batch
    style_mixing: Share = 0.9  # probability of mixing two latents' styles
    bcr_real: Weight = 0.0  # weight of bCR on reals, 0: off (Zhao et al. 2021)
    bcr_fake: Weight = 0.0  # weight of bCR on fakes
    image_norm: ValueRange = "none"  # units of the images that R1 and bCR are meant in

    def check(self, G: GeneratorConfig, D: DiscriminatorConfig) -> None:
        check_units(self.image_norm, G.img_channels, "loss.image_norm")


@register_objective("logistic", LogisticConfig)
class Logistic(Objective):
    """Averaged over the whole batch: 'w', 'pl_length', 'sign_real'."""

    cfg: LogisticConfig
    curves = (
        ("Losses", {"G": "Loss/G/loss", "D": "Loss/D/loss"}, ""),
        (
            "Scores of the discriminator",
            {"reals": "Loss/scores/real", "fakes": "Loss/scores/fake"},
            "Drifting far apart means that the discriminator overfits.",
        ),
        ("Mean sign of D(real)", {"sign": "Loss/signs/real"}, "What augmentation is adapted to."),
        ("Augmentation probability p", {"p": "Progress/augment"}, ""),
        ("R1 penalty", {"R1": "Loss/r1_penalty"}, ""),
        ("Path length penalty", {"penalty": "Loss/pl_penalty"}, ""),
        ("Balanced consistency", {"reals": "Loss/bcr/real", "fakes": "Loss/bcr/fake"}, ""),
    )

    def __init__(self, *args: object):
        super().__init__(*args)  # type: ignore[arg-type]
        self.pl_mean = torch.zeros([], device=next(self.G.parameters()).device)  # path length, as of the last step
        if self.D.takes_levels and (self.cfg.bcr_real or self.cfg.bcr_fake):
            raise UserError("loss.bcr_real, loss.bcr_fake: bCR varies one picture, but this discriminator takes levels")

    def phases(self) -> list[PhaseSpec]:
        cfg = self.cfg
        phases = [PhaseSpec("Gmain", "G", self.g_main)]
        if cfg.pl_weight and cfg.pl_interval:
            phases.append(PhaseSpec("Greg", "G", self.g_path_length, cfg.pl_interval, lazy=True))
        phases.append(PhaseSpec("Dmain", "D", self.d_main, needs_reals=True))
        if cfg.r1_gamma:
            phases.append(PhaseSpec("Dreg", "D", self.d_r1, cfg.r1_interval, needs_reals=True, lazy=True))
        return phases

    def lazy_interval(self, player: str) -> int | None:
        return self.cfg.pl_interval if player == "G" else self.cfg.r1_interval

    def after_step(self) -> None:
        super().after_step()
        length = self.means.take("pl_length")
        if length is not None:
            self.pl_mean.lerp_(length.squeeze(0), self.cfg.pl_decay)

    def state(self) -> dict[str, torch.Tensor]:
        return {"pl_mean": self.pl_mean}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        self.pl_mean.copy_(state["pl_mean"])

    def certainty(self, stats: Stats) -> float:
        real, fake = (stats.get(f"Loss/signs/{kind}", {}).get("mean", 0.0) for kind in ("real", "fake"))
        return max(min(real, -fake), 0.0)

    def g_main(self, batch: MicroBatch) -> torch.Tensor:
        """softplus(-D(G(z))): G wants its images taken for real."""
        fakes = self.generate(batch.gen_c, self.cfg.style_mixing, record_w=True)
        logits = self.run_D(fakes, batch.gen_c)
        self.report_scores("fake", logits)
        loss = F.softplus(-logits)
        self.stats.report("Loss/G/loss", loss)
        return loss.mean()

    def g_path_length(self, batch: MicroBatch) -> torch.Tensor:
        """(|J^T y| - a)^2 (Karras et al. 2020, equation 4), a the running mean length as of the step before."""
        n = max(len(batch) // self.cfg.pl_batch_shrink, 1)
        c = batch.gen_c[:n]
        # Only the MATH attention kernel can be differentiated twice.
        with sdpa_kernel(SDPBackend.MATH):
            z = torch.randn([n, self.G.z_dim], device=c.device)
            lengths = path_length(self.G, self.G.mixed_styles(z, c, self.cfg.style_mixing))
        self.means.add("pl_length", lengths)
        penalty = (lengths - self.pl_mean).square()
        self.stats.report("Loss/pl_penalty", penalty)
        loss = penalty * self.cfg.pl_weight
        self.stats.report("Loss/G/reg", loss)
        return loss.mean()

    def d_main(self, batch: MicroBatch) -> torch.Tensor:
        """softplus(D(G(z))) + softplus(-D(x)), and bCR on both."""
        assert batch.real is not None
        with torch.no_grad():
            fakes = self.generate(batch.gen_c, self.cfg.style_mixing)
        reals = self.G.levels_of(batch.real)
        fake_logits = self.run_D(fakes, batch.gen_c)
        real_logits = self.run_D(reals, batch.real_c)
        self.report_scores("fake", fake_logits)
        self.report_scores("real", real_logits)
        self.means.add("sign_real", real_logits.sign())
        loss = F.softplus(fake_logits) + F.softplus(-real_logits)
        self.stats.report("Loss/D/loss", loss)
        if self.cfg.bcr_real:
            loss = loss + self._inconsistency("real", reals, batch.real_c, real_logits) * self.cfg.bcr_real
        if self.cfg.bcr_fake:
            loss = loss + self._inconsistency("fake", fakes, batch.gen_c, fake_logits) * self.cfg.bcr_fake
        return loss.mean()

    def d_r1(self, batch: MicroBatch) -> torch.Tensor:
        """gamma / 2 * |grad_x D(augment(x))|^2 on reals (Mescheder et al. 2018, equation 9), x in `image_norm`."""
        assert batch.real is not None
        units = self.cfg.image_norm

        def judge(images: Images) -> torch.Tensor:
            return self.run_D(self.G.levels_of(from_units(images[0], units)), batch.real_c, once=False)

        penalty = gradient_penalty(judge, [to_units(batch.real.detach(), units)])
        self.stats.report("Loss/r1_penalty", penalty)
        loss = penalty * (at(self.cfg.r1_gamma, self.nimg) / 2)
        self.stats.report("Loss/D/reg", loss)
        return loss.mean()

    def _inconsistency(self, what: str, images: Images, c: torch.Tensor | None, logits: torch.Tensor) -> torch.Tensor:
        """(D(T(x)) - D(x))^2, T a random variation (bCR: Zhao et al. 2021, algorithm 1)."""
        units = self.cfg.image_norm
        varied = from_units(consistency.vary(to_units(images[-1], units)), units)
        difference = (self.run_D([varied], c) - logits).square()
        self.stats.report(f"Loss/bcr/{what}", difference)
        return difference
