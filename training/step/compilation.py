"""torch.compile for the phases that differentiate once; R1 and path length differentiate twice, which it can't."""

import warnings

import torch

from training.objectives.base import FirstOrder, Objective


def compile_first_order(objective: Objective) -> None:
    """Lets what `objective` differentiates once run compiled forms of G and D: same weights, same random draws.

    One warning, and nothing compiled, where torch.compile does not work (it needs a C++ compiler on a CPU).
    """
    try:
        torch.compile(_probe)(torch.ones(8))
    except Exception as e:  # whatever the compiler or its tools raise
        reason = " ".join(str(e).split())[:200]
        warnings.warn(f"--compile has no effect, torch.compile fails here: {reason}", stacklevel=2)
        return
    # Without it a compiled network would draw other noise than the same network without --compile.
    torch._inductor.config.fallback_random = True
    G, D = objective.G, objective.D
    objective.first_order = FirstOrder(torch.compile(G.levels, dynamic=False), torch.compile(D, dynamic=False))


def _probe(x: torch.Tensor) -> torch.Tensor:
    return (x * 2).sin().sum()
