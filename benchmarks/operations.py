"""Counts floating-point operations by torch.utils.flop_counter's formulas: matrix products, convolutions and attention,
forwards and backwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class OperationCount(TorchDispatchMode):
    """Sums the operations of all calls. (FlopCounterMode also follows modules, with hooks that a gradient of a gradient
    doesn't get past.)"""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


@contextmanager
def counted_operations() -> Iterator[OperationCount]:
    """Counts what runs inside, with attention as plain matrix products: the CPU's fused form has no formula."""
    with sdpa_kernel(SDPBackend.MATH), OperationCount() as count:
        yield count
