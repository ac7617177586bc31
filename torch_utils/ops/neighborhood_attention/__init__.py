"""neighborhood_attention: every query sees the K x K keys around it."""

from torch_utils.ops.neighborhood_attention.public import Partition, hydra_na2d, na2d, na2d_probabilities

__all__ = ["Partition", "hydra_na2d", "na2d", "na2d_probabilities"]
