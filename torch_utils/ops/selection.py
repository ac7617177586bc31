"""Which implementation of the ops runs: automatic, or forced for a stretch of code."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

IMPLEMENTATIONS = ("auto", "ref", "compiled", "natten")
_choice: ContextVar[str] = ContextVar("styleloom_ops_choice", default="auto")


def choice() -> str:
    """The implementation in force: one of IMPLEMENTATIONS."""
    return _choice.get()


# What torch.compiler.assume_constant_result sets: compiled code keeps the choice that was in force when it was traced.
# (Calling that would import torch._dynamo, seconds, in every process.)
choice._dynamo_marked_constant = True  # type: ignore[attr-defined]


@contextmanager
def use(implementation: str) -> Iterator[None]:
    """Forces one implementation of every op inside the block.

    "ref" is the plain PyTorch form: any device, dtype and order of gradient. "compiled" is the kernel of the
    tensor's device, and a RuntimeError where that can't be had. "auto" is the best that works. "natten" is the package
    of that name for neighbourhood attention, a RuntimeError where it can't serve, and "auto" for all other ops.

    Raises:
        ValueError: unknown name.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"unknown implementation {implementation!r}: choose one of {', '.join(IMPLEMENTATIONS)}")
    token = _choice.set(implementation)
    try:
        yield
    finally:
        _choice.reset(token)
