"""bias_act: bias, activation, gain and clamp in one pass."""

from torch_utils.ops.bias_act.public import bias_act

__all__ = ["bias_act"]
