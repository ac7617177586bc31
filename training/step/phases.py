"""A training phase as data: which network steps, how often, by which loss; and what happens to its gradients."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from dnnlib.errors import UserError
from torch_utils import distributed
from training.config import OptimizerConfig, TrainingConfig
from training.networks.shared.spectral_norm import advance_power_iteration
from training.objectives.logistic import GanLoss, MicroBatch


@dataclass
class Phase:
    """One kind of optimisation step."""

    name: str
    module: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: OptimizerConfig
    interval: int  # batches between two steps; the loss is scaled by it
    loss: Callable[[MicroBatch], torch.Tensor]
    needs_reals: bool
    parameters: list[nn.Parameter]  # those that are trained, in a fixed order
    base_lr: float  # before any decay
    max_norm: float | None = None  # the gradient's norm is clipped to this

    def set_trainable(self, on: bool) -> None:
        """Only the stepping network's parameters require gradients."""
        for p in self.parameters:
            p.requires_grad_(on)

    def update(self, nimg: int) -> None:
        """Takes the optimisation step from the gradients that the parameters hold, after `nimg` images."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.base_lr * decay_factor(self.schedule, nimg)
        if self.max_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.max_norm)
        self.optimizer.step()
        advance_power_iteration(self.module)


def build_phases(cfg: TrainingConfig, G: nn.Module, D: nn.Module, loss: GanLoss) -> list[Phase]:
    """The phases in the order in which a step runs them. Leaves all parameters of G and D without gradients."""
    g_params = [p for p in G.parameters() if p.requires_grad]
    d_params = [p for p in D.parameters() if p.requires_grad]
    G.requires_grad_(False)
    D.requires_grad_(False)
    g_opt = _adam(g_params, cfg.G_opt, cfg.loss.pl_interval)
    d_opt = _adam(d_params, cfg.D_opt, cfg.loss.r1_interval)
    g_lr, d_lr = g_opt.param_groups[0]["lr"], d_opt.param_groups[0]["lr"]
    g_clip, d_clip = cfg.G_opt.max_grad_norm, cfg.D_opt.max_grad_norm
    g_step, d_step = cfg.loss.pl_interval, cfg.loss.r1_interval
    phases = [Phase("Gmain", G, g_opt, cfg.G_opt, 1, loss.g_main, False, g_params, g_lr, g_clip)]
    if cfg.loss.pl_weight and g_step:
        phases.append(Phase("Greg", G, g_opt, cfg.G_opt, g_step, loss.g_path_length, False, g_params, g_lr))
    phases.append(Phase("Dmain", D, d_opt, cfg.D_opt, 1, loss.d_main, True, d_params, d_lr, d_clip))
    if cfg.loss.r1_gamma:
        phases.append(Phase("Dreg", D, d_opt, cfg.D_opt, d_step, loss.d_r1, True, d_params, d_lr))
    return phases


def decay_factor(cfg: OptimizerConfig, nimg: int) -> float:
    """What the learning rate is multiplied by after `nimg` images: 1, falling linearly to 0 between the two marks.

    Raises UserError if there is only one mark, or they are the wrong way round.
    """
    start, end = cfg.decay_start_kimg, cfg.decay_end_kimg
    if start is None and end is None:
        return 1.0
    if start is None or end is None or end <= start:
        raise UserError(f"decay_start_kimg must be below decay_end_kimg, and both set or none: got {start} and {end}")
    return min(max((end - nimg / 1000) / (end - start), 0.0), 1.0)


def _adam(parameters: list[nn.Parameter], cfg: OptimizerConfig, interval: int | None) -> torch.optim.Adam:
    """Adam, corrected for the extra step that lazy regularisation takes every `interval` batches
    (Karras et al. 2020, appendix B)."""
    ratio = 1.0 if interval is None else interval / (interval + 1)
    betas = (cfg.betas[0] ** ratio, cfg.betas[1] ** ratio)
    return torch.optim.Adam(parameters, lr=cfg.lr * ratio, betas=betas, eps=cfg.eps, fused=True)


def sync_gradients(parameters: list[nn.Parameter]) -> int:
    """Sums the gradients over all processes as one flat float32 buffer, and replaces what is not finite by 0.

    Returns how many gradient values were not finite. Parameters that got no gradient in any process keep None.
    """
    if not parameters:
        return 0
    used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=parameters[0].device)
    used = distributed.all_max(used)
    active = [p for p, u in zip(parameters, used.tolist()) if u]
    if not active:
        return 0
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in active])
    distributed.all_sum(flat)
    bad = int((~flat.isfinite()).sum())
    if bad:
        torch.nan_to_num(flat, nan=0.0, posinf=0.0, neginf=0.0, out=flat)
    for p, g in zip(active, flat.split([p.numel() for p in active])):
        p.grad = g.view_as(p)
    return bad


def keyed_seed(seed: int, step: int, phase: int, micro_batch: int) -> int:
    """The random seed of one micro-batch: the same whichever process computes it, and whenever."""
    key = f"{seed}/{step}/{phase}/{micro_batch}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1
