"""The package natten as an implementation of neighbourhood attention, by its own fallback for CPUs."""

import importlib.util
import warnings

import pytest
import torch
from support.op_cases import attention_inputs, error

from torch_utils import ops
from torch_utils.ops.neighborhood_attention import Partition, hydra_na2d, na2d, natten_backend

needs_natten = pytest.mark.skipif(importlib.util.find_spec("natten") is None, reason="natten is not installed")


def qkv(*shape, dtype=torch.float32):
    return [t.requires_grad_() for t in attention_inputs(shape, (3, 3), dtype)[:3]]


def all_orders(implementation, leaves, *args):
    with ops.use(implementation), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # natten's fallback says that it is slow
        y = na2d(*leaves, *args)
        first = torch.autograd.grad((y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum(), leaves, create_graph=True)
        return [y, *first, *torch.autograd.grad(sum((g**2).sum() for g in first), leaves)]


@needs_natten
@pytest.mark.parametrize(
    ("shape", "kernel", "dilation", "scale"),
    [
        ((2, 9, 9, 2, 8), 3, 1, None),
        ((1, 12, 17, 2, 8), (3, 5), (4, 2), 0.3),  # groups of different sizes
        ((1, 4, 4, 4, 8), 4, 1, None),  # full attention
    ],
)
def test_all_orders_are_ours(shape, kernel, dilation, scale):
    leaves = qkv(*shape)
    want = all_orders("ref", leaves, kernel, dilation, None, scale)
    for got, expected in zip(all_orders("natten", leaves, kernel, dilation, None, scale), want):
        assert error(got, expected) < 1e-5


@needs_natten
def test_partitions_and_strides():
    packed = torch.randn(1, 8, 10, 3, 4, 8, generator=torch.Generator().manual_seed(0))
    results = []
    for implementation in ("ref", "natten"):
        leaf = packed.clone().requires_grad_()
        with ops.use(implementation), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            y = hydra_na2d(*leaf.unbind(3), [Partition(1, 3, 2), Partition(3, (5, 3))])
        results.append([y, *torch.autograd.grad(y.square().sum(), leaf)])
    for want, got in zip(*results):
        assert error(got, want) < 1e-5


@needs_natten
def test_bfloat16():
    leaves = qkv(1, 8, 8, 2, 8, dtype=torch.bfloat16)
    with ops.use("natten"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y = na2d(*leaves, 3)
        grads = torch.autograd.grad(y.float().square().sum(), leaves)
    assert {t.dtype for t in (y, *grads)} == {torch.bfloat16}
    with ops.use("ref"):
        assert error(y, na2d(*(t.double() for t in leaves), 3)) < 0.02


@needs_natten
@pytest.mark.filterwarnings("ignore")
def test_opcheck():
    arguments = (*qkv(1, 6, 6, 2, 8), None, [2, 3, 3, 1, 2], 0.5)
    tests = ("test_autograd_registration",)  # the others follow flex_attention's own steps, which they do not know
    torch.library.opcheck(torch.ops.styleloom.na2d_natten.default, arguments, test_utils=tests)


@needs_natten
def test_it_says_what_it_cannot_do():
    q = torch.zeros(1, 8, 8, 2, 8)
    with ops.use("natten"):
        with pytest.raises(RuntimeError, match="has no position bias"):
            na2d(q, q, q, 3, rpb=torch.zeros(2, 5, 5))
        with pytest.raises(RuntimeError, match="no kernel for torch.float64"):
            na2d(*[q.double()] * 3, 3)
        with pytest.raises(RuntimeError, match="kernel_size of 2 or more"):
            na2d(q, q, q, 1)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    natten_backend._why_not_installed.cache_clear()
    q = torch.zeros(1, 8, 8, 2, 8)
    with ops.use("natten"), pytest.raises(RuntimeError, match=r"natten is not installed \(pip install"):
        na2d(q, q, q, 3)
    natten_backend._why_not_installed.cache_clear()


def test_other_ops_run_as_ever_where_natten_is_chosen():
    from torch_utils.ops.bias_act import bias_act

    x = torch.randn(2, 3)
    with ops.use("natten"):
        assert torch.equal(bias_act(x, act="relu"), bias_act(x, act="relu"))


@pytest.mark.parametrize("times", [(2.0, 1.0), (1.0, 2.0)])
def test_the_faster_one_is_looked_for_once(times, monkeypatch):
    measured = []

    def milliseconds(work):
        measured.append(work)
        return times[len(measured) - 1]

    monkeypatch.setattr(natten_backend, "_milliseconds", milliseconds)
    monkeypatch.setattr(natten_backend, "why_not", lambda *_: None)
    monkeypatch.setattr(natten_backend, "_faster", {})
    q = _OnAnotherDevice(torch.zeros(1, 8, 8, 2, 8))
    for _ in range(3):
        assert natten_backend.is_faster(q, q, q, None, [2, 3, 3, 1, 1], 0.5) == (times[1] < times[0])
    assert len(measured) == 2
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert not natten_backend.is_faster(q, q, q, None, [2, 3, 3, 1, 1], 0.5)


class _OnAnotherDevice:
    """A tensor that says it is on a GPU."""

    def __init__(self, t):
        self.device, self.dtype, self.shape = torch.device("cuda", 0), t.dtype, t.shape

    def detach(self):
        return self
