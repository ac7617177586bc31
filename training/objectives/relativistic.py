"""The relativistic pairing objective of R3GAN (Huang et al. 2024, "The GAN is dead; long live the GAN!", arXiv
2501.05441): each real is paired with a fake of the same label, D says which is which, and gradient penalties on both
sides (R1, R2) make it converge. With `guidance` and an approximate penalty it is GAT's (arXiv 2509.24935)."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from dnnlib.config import Count, Range, Share
from dnnlib.errors import UserError
from torch_utils.training_stats import Stats
from training.networks.discriminators.gat import GATDiscriminator
from training.networks.registry import DiscriminatorConfig, GeneratorConfig
from training.networks.shared.generator import Generator
from training.objectives.alignment import Alignment, AlignmentConfig
from training.objectives.base import Images, MicroBatch, Objective, ObjectiveConfig, PhaseSpec, register_objective
from training.objectives.guidance import LevelNoise
from training.objectives.penalties import approximate_penalty, squared_gradient
from training.schedule import Value, at


@dataclass
class RelativisticConfig(ObjectiveConfig):
    """Relativistic pairing loss with R1 and R2."""

    gamma_field: ClassVar[str | None] = "gamma"

    gamma: Value = 1.0  # weight of both gradient penalties, in units of [-1, 1] images; 0: none
    penalty: Literal["exact", "approximate"] = "exact"  # by second derivatives, or by a finite difference
    interval: Count = 1  # batches between penalties; above 1 they are a lazy phase of their own
    step: Annotated[float, Range(1e-6, 1)] = 0.01  # of the finite difference
    style_mixing: Share = 0.0  # probability of mixing two latents' styles
    guidance: Literal["none", "mng"] = "none"  # noise on what D sees, by level
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)

    def check(self, G: GeneratorConfig, D: DiscriminatorConfig) -> None:
        self.alignment.check(G, D)

    def check_levels(self, G: Generator) -> None:
        if self.guidance == "none":
            return
        picture = torch.empty(1, G.img_channels, *G.img_size, device="meta")
        sizes = [f"{level.shape[3]}x{level.shape[2]}" for level in G.levels_of(picture)]
        if len(set(sizes)) > 1:
            raise UserError(
                f"loss.guidance={self.guidance} adds up noise over levels of one size, but those of {G.cfg.kind} have "
                f"{', '.join(sizes)} pixels: leave it out, or choose another generator"
            )


@dataclass
class Judged:
    """Images, what D says of them, and how it saw them."""

    images: Images  # before augmentation; for an exact penalty they require gradients
    logits: torch.Tensor  # [N, 1]
    judge: Callable[[Images], torch.Tensor]  # the same random choices for other images
    misaligned: torch.Tensor | None = None  # [N], by how much D's features differ from the encoder's


@register_objective("relativistic", RelativisticConfig)
class Relativistic(Objective):
    """Averaged over the whole batch: 'w', and 'sign_real', here the sign of D(real) - D(fake), which ADA steers by."""

    cfg: RelativisticConfig
    curves = (
        ("Losses", {"G": "Loss/G/loss", "D": "Loss/D/loss"}, ""),
        ("Mean sign of D(real) - D(fake)", {"sign": "Loss/signs/pair"}, "1: the discriminator is never wrong."),
        ("Augmentation probability p", {"p": "Progress/augment"}, ""),
        ("Gradient penalties", {"R1": "Loss/r1_penalty", "R2": "Loss/r2_penalty"}, ""),
        ("Feature alignment", {"1 - cos, class and grid": "Loss/D/alignment"}, "0: D's features are the encoder's."),
    )

    def __init__(self, cfg: RelativisticConfig, G: Generator, *rest: Any):
        super().__init__(cfg, G, *rest)
        self.alignment = Alignment(cfg.alignment, G) if cfg.alignment.detector is not None else None

    def phases(self) -> list[PhaseSpec]:
        cfg = self.cfg
        phases = [PhaseSpec("Dmain", "D", self.d_main, needs_reals=True)]
        if cfg.gamma and cfg.interval > 1:
            phases.append(PhaseSpec("Dreg", "D", self.d_penalties, cfg.interval, needs_reals=True, lazy=True))
        phases.append(PhaseSpec("Gmain", "G", self.g_main, needs_reals=True))
        return phases

    def certainty(self, stats: Stats) -> float:
        return max(stats.get("Loss/signs/pair", {}).get("mean", 0.0), 0.0)

    def g_main(self, batch: MicroBatch) -> torch.Tensor:
        """softplus(-(D(G(z)) - D(x))): the fake should seem more real than the real that it is paired with."""
        real, c = _inputs(batch)
        fake_logits = self._judge(self.generate(c, self.cfg.style_mixing, record_w=True), c).logits
        with torch.no_grad():
            real_logits = self._judge([real], c, is_real=True).logits
        loss = F.softplus(real_logits - fake_logits)
        self.stats.report("Loss/G/loss", loss)
        return loss.mean()

    def d_main(self, batch: MicroBatch) -> torch.Tensor:
        """softplus(-(D(x) - D(G(z)))), and the penalties where they are not a phase of their own."""
        has_penalties = bool(self.cfg.gamma) and self.cfg.interval == 1
        fakes, reals = self._pair(batch, has_penalties, aligned=self.alignment is not None)
        difference = reals.logits - fakes.logits
        self.stats.report("Loss/scores/pair", difference)
        self.stats.report("Loss/signs/pair", difference.sign())
        self.means.add("sign_real", difference.sign())
        loss = F.softplus(-difference)
        self.stats.report("Loss/D/loss", loss)
        loss = loss.mean()
        if reals.misaligned is not None:
            self.stats.report("Loss/D/alignment", reals.misaligned)
            loss = loss + self.cfg.alignment.weight * reals.misaligned.mean()
        return loss + self._penalties(fakes, reals) if has_penalties else loss

    def d_penalties(self, batch: MicroBatch) -> torch.Tensor:
        """R1 and R2 as a lazy phase of their own."""
        return self._penalties(*self._pair(batch, has_penalties=True))

    def _pair(self, batch: MicroBatch, has_penalties: bool, aligned: bool = False) -> tuple[Judged, Judged]:
        """Fakes and reals of a batch, judged; ready for the penalties if there are to be any."""
        real, c = _inputs(batch)
        with torch.no_grad():
            fakes = self.generate(c, self.cfg.style_mixing)
        exact = has_penalties and self.cfg.penalty == "exact"
        return self._judge(fakes, c, exact=exact), self._judge([real], c, True, exact, aligned)

    def _judge(
        self, images: Images, c: torch.Tensor, is_real: bool = False, exact: bool = False, aligned: bool = False
    ) -> Judged:
        """D's logits under one draw of augmentation and guidance. All levels of a real are one picture, [real]."""
        if exact:
            images = [x.detach().requires_grad_(True) for x in images]

        def levels(images: Images) -> Images:
            return self.G.levels_of(images[0]) if is_real else images

        draw = self.augment.draw(images[-1])
        noise = LevelNoise.draw(levels(images)) if self.cfg.guidance == "mng" else None

        def seen(images: Images) -> Images:
            varied = [draw.apply(x) for x in levels(images)]
            return varied if noise is None else noise.apply(varied)

        def judge(images: Images) -> torch.Tensor:
            return self.judge(seen(images), c, once=not exact)

        # Only the MATH attention kernel can be differentiated twice.
        with sdpa_kernel(SDPBackend.MATH) if exact else nullcontext():
            if not aligned:
                return Judged(images, judge(images), judge)
            assert self.alignment is not None
            D = cast(GATDiscriminator, self.D)  # the only one with such a head, as the config's check says
            logits, of_class, of_grid = D.logits_and_features(seen(images), c)
            misaligned = self.alignment.loss(images[-1].detach(), draw, of_class, of_grid, D.grid_size)
            return Judged(images, logits, judge, misaligned)

    def _penalties(self, fakes: Judged, reals: Judged) -> torch.Tensor:
        """gamma / 2 (|grad D(real)|^2 + |grad D(fake)|^2), the gradients at the images before augmentation."""
        r1, r2 = self._penalty(reals), self._penalty(fakes)
        self.stats.report("Loss/r1_penalty", r1)
        self.stats.report("Loss/r2_penalty", r2)
        penalty = (r1 + r2) * (at(self.cfg.gamma, self.nimg) / 2)
        self.stats.report("Loss/D/reg", penalty)
        return penalty.mean()

    def _penalty(self, judged: Judged) -> torch.Tensor:
        if self.cfg.penalty == "exact":
            return squared_gradient(judged.logits, judged.images)
        return approximate_penalty(judged.judge, judged.images, judged.logits, self.cfg.step)


def _inputs(batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Reals and their labels, which the fakes that they are paired with share."""
    assert batch.real is not None
    assert batch.real_c is not None
    return batch.real, batch.real_c
