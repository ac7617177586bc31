"""The averages of G that a run keeps for `python -m training.networks ema`."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from dnnlib.errors import UserError
from training.ema.power import decay


class PowerAverages:
    """One copy of G per length (sigma_rel), averaged since the first step. All processes keep the same."""

    def __init__(self, G: nn.Module, lengths: Sequence[float]):
        self.modules = {length: copy.deepcopy(G).eval().requires_grad_(False) for length in lengths}

    @torch.no_grad()
    def update(self, G: nn.Module, before: int, after: int) -> None:
        """Takes in the weights that the step from `before` to `after` images led to.

        Buffers are averaged too: a w_avg belongs to the mapping network that it was measured on, and so its average to
        the averaged one. Constants stay as they are, bit for bit; what is no number with a fraction is copied.
        """
        for length, average in self.modules.items():
            kept, now = (list(module.parameters()) + list(module.buffers()) for module in (average, G))
            is_real = [tensor.is_floating_point() for tensor in kept]
            pairs = list(zip(kept, now))
            targets = [k for (k, _), real in zip(pairs, is_real) if real]
            values = [n for (_, n), real in zip(pairs, is_real) if real]
            torch._foreach_lerp_(targets, values, 1 - decay(length, before, after))
            for (old, new), real in zip(pairs, is_real):
                if not real:
                    old.copy_(new)

    def state(self) -> dict[str, Any]:
        """The averages as plain data: {} if there are none."""
        return {str(length): module.state_dict() for length, module in self.modules.items()}

    def check(self, state: Any) -> None:
        """UserError unless `state` has averages of just these lengths."""
        known = list(state) if isinstance(state, dict) else []
        if self.modules and known != list(self.state()):
            raise UserError(
                f"ema.posthoc={list(self.modules)}: this run keeps averages of {', '.join(map(str, known)) or 'none'} "
                "of these; they count from the first step on, so start afresh with --new"
            )

    def load_state(self, state: Any) -> None:
        """Goes on from what `state` gave."""
        for length, module in self.modules.items():
            module.load_state_dict(state[str(length)])
