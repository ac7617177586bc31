"""The two players of the game, G and D: a network, what it is stepped by, and which parameters that moves."""

from dataclasses import dataclass

import torch
from torch import nn

from training.config import OptimizerConfig
from training.networks.shared.spectral_norm import advance_power_iteration
from training.schedule import at

_OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


@dataclass
class Player:
    """A network and its optimiser; its phases share both."""

    module: nn.Module
    cfg: OptimizerConfig
    parameters: list[nn.Parameter]  # those that are trained, in a fixed order
    lazy_ratio: float  # n / (n + 1) for a lazy phase every n batches, else 1 (Karras et al. 2020, appendix B)
    optimizer: torch.optim.Optimizer

    @classmethod
    def of(cls, module: nn.Module, cfg: OptimizerConfig, lazy_interval: int | None) -> "Player":
        """Takes the parameters that are trainable now, and leaves them all without gradients."""
        parameters = [p for p in module.parameters() if p.requires_grad]
        module.requires_grad_(False)
        ratio = 1.0 if lazy_interval is None else lazy_interval / (lazy_interval + 1)
        make = _OPTIMIZERS[cfg.kind]
        optimizer = make(parameters, lr=0.0, eps=cfg.eps, weight_decay=cfg.weight_decay, fused=True)
        player = cls(module, cfg, parameters, ratio, optimizer)
        player.schedule(nimg=0)
        return player

    def schedule(self, nimg: int) -> None:
        """Sets learning rate and betas as of `nimg` images, corrected for the extra step of a lazy phase."""
        for group in self.optimizer.param_groups:
            group["lr"] = at(self.cfg.lr, nimg) * self.lazy_ratio
            group["betas"] = tuple(at(beta, nimg) ** self.lazy_ratio for beta in self.cfg.betas)

    def set_trainable(self, on: bool) -> None:
        """Only the stepping player's parameters require gradients."""
        for p in self.parameters:
            p.requires_grad_(on)

    def update(self, nimg: int, clip: bool) -> None:
        """Takes the optimisation step from the gradients that the parameters hold, after `nimg` images."""
        self.schedule(nimg)
        if clip and self.cfg.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.cfg.max_grad_norm)
        self.optimizer.step()
        advance_power_iteration(self.module)
