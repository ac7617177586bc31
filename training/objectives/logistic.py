"""Losses of generator and discriminator on one micro-batch. They know nothing of processes, optimisers or files."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from torch_utils.training_stats import BatchMean, Collector
from training.augment import consistency
from training.config import LossConfig
from training.networks.shared.generator import Generator
from training.networks.shared.pixel_units import check_units, from_units, to_units


@dataclass
class MicroBatch:
    """The inputs of one loss evaluation."""

    gen_c: torch.Tensor  # [N, c_dim] labels to generate for
    real: torch.Tensor | None = None  # [N, C, H, W] in [-1, 1], for phases that need reals
    real_c: torch.Tensor | None = None  # [N, c_dim]

    def __len__(self) -> int:
        return len(self.gen_c)


@dataclass
class GanLoss:
    """Logistic GAN loss (Goodfellow et al. 2014, the non-saturating form), R1 and path length regularisation.

    Each public method takes a micro-batch and returns its mean loss. What has to be averaged over the whole batch
    goes into `means`: 'w', 'pl_length', 'sign_real'.
    """

    G: Generator
    D: nn.Module
    augment: Callable[[torch.Tensor], torch.Tensor]  # applied to whatever D sees
    cfg: LossConfig
    stats: Collector
    means: BatchMean
    pl_mean: torch.Tensor  # [], running mean of path lengths, as of the last step

    def __post_init__(self) -> None:
        # What the main phases call, which differentiate once: training.step.compilation puts compiled forms here.
        self.synthesis_once: Callable[..., torch.Tensor] = self.G.synthesis
        self.D_once: Callable[..., torch.Tensor] = self.D
        check_units(self.cfg.image_norm, self.G.img_channels, "loss.image_norm")

    def g_main(self, batch: MicroBatch) -> torch.Tensor:
        """softplus(-D(G(z))): G wants its images taken for real."""
        logits = self._run_d(self._fakes(batch, record_w=True), batch.gen_c)
        self._report_scores("fake", logits)
        loss = F.softplus(-logits)
        self.stats.report("Loss/G/loss", loss)
        return loss.mean()

    def g_path_length(self, batch: MicroBatch) -> torch.Tensor:
        """(|J^T y| - a)^2 (Karras et al. 2020, equation 4), a the running mean length as of the step before."""
        n = max(len(batch) // self.cfg.pl_batch_shrink, 1)
        c = batch.gen_c[:n]
        # Only the MATH attention kernel can be differentiated twice.
        with sdpa_kernel(SDPBackend.MATH):
            ws = self.G.mixed_styles(self._latents(n, c), c, self.cfg.style_mixing)
            if not ws.requires_grad:  # a mapping without weights
                ws.requires_grad_(True)
            images = self.G.synthesis(ws, noise_mode="random")
            y = torch.randn_like(images) / (images.shape[2] * images.shape[3]) ** 0.5
            (gradient,) = torch.autograd.grad((images * y).sum(), ws, create_graph=True)
        lengths = gradient.square().sum(2).mean(1).sqrt()
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
            fakes = self._fakes(batch)
        fake_logits = self._run_d(fakes, batch.gen_c)
        real_logits = self._run_d(batch.real, batch.real_c)
        self._report_scores("fake", fake_logits)
        self._report_scores("real", real_logits)
        self.means.add("sign_real", real_logits.sign())
        loss = F.softplus(fake_logits) + F.softplus(-real_logits)
        self.stats.report("Loss/D/loss", loss)
        if self.cfg.bcr_real:
            loss = loss + self._inconsistency("real", batch.real, batch.real_c, real_logits) * self.cfg.bcr_real
        if self.cfg.bcr_fake:
            loss = loss + self._inconsistency("fake", fakes, batch.gen_c, fake_logits) * self.cfg.bcr_fake
        return loss.mean()

    def _inconsistency(
        self, what: str, images: torch.Tensor, c: torch.Tensor | None, logits: torch.Tensor
    ) -> torch.Tensor:
        """(D(T(x)) - D(x))^2, T a random variation (bCR: Zhao et al. 2021, algorithm 1)."""
        varied = from_units(consistency.vary(to_units(images, self.cfg.image_norm)), self.cfg.image_norm)
        difference = (self._run_d(varied, c) - logits).square()
        self.stats.report(f"Loss/bcr/{what}", difference)
        return difference

    def d_r1(self, batch: MicroBatch) -> torch.Tensor:
        """gamma / 2 * |grad_x D(augment(x))|^2 on reals (Mescheder et al. 2018, equation 9), x in `image_norm`."""
        assert batch.real is not None
        real = to_units(batch.real.detach(), self.cfg.image_norm).requires_grad_(True)
        logits = self.D(self.augment(from_units(real, self.cfg.image_norm)), batch.real_c)
        (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
        penalty = gradient.square().sum([1, 2, 3])
        self.stats.report("Loss/r1_penalty", penalty)
        loss = penalty * (self.cfg.r1_gamma / 2)
        self.stats.report("Loss/D/reg", loss)
        return loss.mean()

    def _fakes(self, batch: MicroBatch, record_w: bool = False) -> torch.Tensor:
        z = self._latents(len(batch), batch.gen_c)
        ws = self.G.mixed_styles(z, batch.gen_c, self.cfg.style_mixing)
        if record_w:
            # The first style always comes from the first latent, mixed or not.
            self.means.add("w", ws[:, 0])
        return self.synthesis_once(ws, noise_mode="random")

    def _latents(self, n: int, like: torch.Tensor) -> torch.Tensor:
        return torch.randn([n, self.G.z_dim], device=like.device)

    def _run_d(self, images: torch.Tensor, c: torch.Tensor | None) -> torch.Tensor:
        return self.D_once(self.augment(images), c)

    def _report_scores(self, what: str, logits: torch.Tensor) -> None:
        self.stats.report(f"Loss/scores/{what}", logits)
        self.stats.report(f"Loss/signs/{what}", logits.sign())
