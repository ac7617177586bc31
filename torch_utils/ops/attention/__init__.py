"""Attention of every query to every key, in the form that is fastest on the tensors' device."""

from torch_utils.ops.attention.public import attention

__all__ = ["attention"]
