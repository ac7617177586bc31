"""What a run minimises: losses and their regularisers, on one micro-batch at a time. Importing this package registers
the objectives."""

from training.objectives import logistic, relativistic

__all__ = ["logistic", "relativistic"]
