"""Custom ops: plain PyTorch references, C++ kernels for CPUs and CUDA kernels behind the same functions.

Importing builds nothing; the kernels of a device are compiled at the first use of an op on it.
"""

from torch_utils.ops.selection import use

__all__ = ["use"]
