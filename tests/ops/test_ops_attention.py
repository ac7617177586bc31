"""Neighbourhood attention: compiled kernels and dispatcher ops against the reference, gradients to the second order."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.op_cases import ATTENTION_GRID, attention_inputs, attention_orders, error

from torch_utils import ops
from torch_utils.ops.build import library
from torch_utils.ops.neighborhood_attention import Partition, hydra_na2d, na2d, na2d_probabilities, reference

OPS = torch.ops.styleloom
needs_kernels = pytest.mark.skipif(not library.ensure("cpu").loaded, reason="no compiled kernels here")


@needs_kernels
@pytest.mark.parametrize(("shape", "kernel", "dilation"), ATTENTION_GRID)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_kernels_against_the_reference(shape, kernel, dilation, dtype, tolerance):
    tensors = attention_inputs(shape, kernel, dtype)
    expected = attention_orders("ref", [t.double() for t in tensors], kernel, dilation)
    for got, want in zip(attention_orders("compiled", tensors, kernel, dilation), expected):
        assert got.dtype == dtype
        assert error(got, want) < tolerance


@needs_kernels
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_fuzz(data):
    def draw(low, high):
        return data.draw(st.integers(low, high))

    kernel = (2 * draw(0, 3) + 1, 2 * draw(0, 3) + 1)
    dilation = (draw(1, 4), draw(1, 4))
    height, width = (k * d + draw(0, 9) for k, d in zip(kernel, dilation))
    tensors = attention_inputs((draw(0, 2), height, width, draw(1, 3), draw(1, 19)), kernel, torch.float64, draw(0, 99))
    if tensors[0].numel() == 0:
        leaves = [t.requires_grad_() for t in tensors]
        y = na2d(*leaves[:3], kernel, dilation, rpb=leaves[3])
        grads = torch.autograd.grad(y.sum(), leaves)
        assert y.shape == leaves[0].shape
        assert grads[3].abs().sum() == 0
        return
    expected = attention_orders("ref", tensors, kernel, dilation)
    for got, want in zip(attention_orders("compiled", tensors, kernel, dilation), expected):
        assert error(got, want) < 1e-11


@needs_kernels
def test_strided_inputs_and_partitions():
    # q, k, v as views of one projection, heads split into partitions with and without a bias
    qkv = torch.randn(2, 12, 15, 3, 5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rpb = torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    results = []
    for implementation in ("ref", "compiled"):
        leaves = [qkv.clone().requires_grad_(), rpb.clone().requires_grad_()]
        partitions = [Partition(1, 3, (4, 5)), Partition(2, (5, 3), (2, 1), leaves[1]), Partition(2, 7)]
        with ops.use(implementation):
            y = hydra_na2d(*leaves[0].unbind(3), partitions)
            flipped = hydra_na2d(*(t.transpose(1, 2) for t in leaves[0].unbind(3)), [Partition(5, 3)])
        results.append([y, flipped, *torch.autograd.grad(y.square().sum() + flipped.sum(), leaves)])
    for want, got in zip(*results):
        assert error(got, want) < 1e-12


@pytest.mark.parametrize("implementation", ["ref", "auto"])
def test_gradcheck(implementation):
    tensors = [t.requires_grad_() for t in attention_inputs((1, 3, 5, 1, 2), (3, 3), torch.float64)]

    def attend(q, k, v, rpb):
        with ops.use(implementation):
            return na2d(q, k, v, 3, 1, rpb=rpb)

    torch.autograd.gradcheck(attend, tensors, fast_mode=True)
    torch.autograd.gradgradcheck(attend, tensors, fast_mode=True)


def test_gradcheck_of_every_op():
    q, k, v, rpb = (t.requires_grad_() for t in attention_inputs((1, 4, 3, 1, 2), (3, 3), torch.float64))
    flat = rpb.flatten().detach().requires_grad_()
    partitions, window = [1, 3, 3, 1, 1], [3, 3, 1, 1]
    torch.autograd.gradcheck(lambda *a: OPS.na2d(*a, partitions, 0.7), (q, k, v, flat))  # the log-sum-exp too
    lse, delta = (torch.randn(1, 4, 3, 1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    args = (torch.randn_like(q).requires_grad_(), q, k, v, flat, lse.detach().add(3).requires_grad_(), delta)
    torch.autograd.gradcheck(lambda *a: OPS.na2d_backward(*a, partitions, 0.7), args)
    weights = torch.randn(1, 4, 3, 1, 9, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda a, b: OPS.na2d_qk(a, b, window), (q, k))
    torch.autograd.gradcheck(lambda a, b: OPS.na2d_av(a, b, window), (weights, v))
    torch.autograd.gradcheck(lambda a, b: OPS.na2d_avt(a, b, window), (weights, v))


def _default_kernel(op, *args):
    return op.default._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, *args)


@needs_kernels
def test_default_kernels_match_compiled_ones():
    """What runs where nothing could be compiled."""
    q, k, v, rpb = attention_inputs((2, 8, 9, 3, 4), (3, 3), torch.float64)
    forward = (q, k, v, rpb.flatten(), [2, 3, 3, 2, 1, 1, 3, 3, 1, 3], 0.5)
    out, lse = _default_kernel(OPS.na2d, *forward)
    backward = (torch.randn_like(q), *forward[:4], lse, torch.randn_like(lse), *forward[4:])
    window, weights = [3, 3, 2, 3], torch.randn(2, 8, 9, 3, 9, dtype=torch.float64)
    for got, want in zip((out, lse), OPS.na2d(*forward)):
        assert error(got, want) < 1e-12
    for got, want in zip(_default_kernel(OPS.na2d_backward, *backward), OPS.na2d_backward(*backward)):
        assert error(got, want) < 1e-12
    for op, args in ((OPS.na2d_qk, (q, k)), (OPS.na2d_av, (weights, v)), (OPS.na2d_avt, (weights, v))):
        assert error(_default_kernel(op, *args, window), op(*args, window)) < 1e-12


def test_window_rule_by_hand():
    positions, bias = reference.window_table(10, 3, 3)  # groups 0 3 6 9, 1 4 7, 2 5 8
    assert positions[0] == (0, 3, 6)
    assert positions[3] == (0, 3, 6)
    assert positions[6] == (3, 6, 9)
    assert positions[9] == (3, 6, 9)
    assert positions[7] == (1, 4, 7)
    assert bias[0] == (2, 3, 4)
    assert bias[9] == (0, 1, 2)


def test_probabilities():
    q, k, v, rpb = attention_inputs((1, 6, 8, 2, 4), (3, 5), torch.float64)
    p = na2d_probabilities(q, k, (3, 5), (2, 1), rpb)
    assert p.shape == (1, 6, 8, 2, 3, 5)
    assert torch.allclose(p.sum((-1, -2)), torch.ones(1, 6, 8, 2, dtype=torch.float64))
    out = torch.einsum("nyxhk,nyxhkd->nyxhd", p.flatten(4), reference.neighbours(v, (3, 5), (2, 1)))
    assert error(na2d(q, k, v, (3, 5), (2, 1), rpb), out) < 1e-12


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_inputs_sum_in_float32(dtype):
    q, k, v, rpb = attention_inputs((1, 14, 14, 2, 16), (7, 7), torch.float32)
    q, k, v = (t.to(dtype).requires_grad_() for t in (q, k, v))
    y = na2d(q, k, v, 7, 2, rpb)
    grads = torch.autograd.grad(y.float().square().sum(), (q, k, v))
    exact = [t.detach().double().requires_grad_() for t in (q, k, v)]
    with ops.use("ref"):
        want = na2d(*exact, 7, 2, rpb.double())
    step = torch.finfo(dtype).eps
    assert y.dtype == dtype
    assert error(y, want) < step
    for got, expected in zip(grads, torch.autograd.grad(want.square().sum(), exact)):
        assert error(got, expected) < 3 * step


def test_autocast_lowers_attention():
    q, k, v, rpb = (t.requires_grad_() for t in attention_inputs((1, 6, 6, 1, 8), (3, 3), torch.float32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = na2d(q, k, v, 3, rpb=rpb)
    assert y.dtype == torch.bfloat16
    assert error(y, na2d(q, k, v, 3, rpb=rpb)) < 0.02
    assert {t.dtype for t in torch.autograd.grad(y.float().sum(), (q, k, v, rpb))} == {torch.float32}


@needs_kernels
def test_bitwise_reproducible_whatever_the_threads():
    tensors = attention_inputs((2, 60, 31, 2, 24), (3, 7), torch.float32)  # two bands of rows
    threads = torch.get_num_threads()
    try:
        runs = []
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            runs.append(attention_orders("compiled", tensors, (3, 7), (2, 1)))
    finally:
        torch.set_num_threads(threads)
    for results in zip(*runs):
        assert torch.equal(results[0], results[1])
        assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("with_bias", [False, True])
def test_opcheck(with_bias):
    q, k, v, rpb = (t.requires_grad_() for t in attention_inputs((1, 5, 6, 2, 4), (3, 3), torch.float32))
    bias = rpb.flatten().detach().requires_grad_() if with_bias else None
    partitions = [1, 3, 3, 1, 2, 1, 3, 3, 1, 1]
    torch.library.opcheck(OPS.na2d.default, (q, k, v, bias, partitions, 0.5))
    lse, delta = torch.randn(1, 5, 6, 2, requires_grad=True), torch.randn(1, 5, 6, 2, requires_grad=True)
    torch.library.opcheck(OPS.na2d_backward.default, (q, q, k, v, bias, lse, delta, partitions, 0.5))
    if not with_bias:
        window, weights = [3, 3, 1, 2], torch.randn(1, 5, 6, 2, 9, requires_grad=True)
        torch.library.opcheck(OPS.na2d_qk.default, (q, k, window))
        torch.library.opcheck(OPS.na2d_av.default, (weights, v, window))
        torch.library.opcheck(OPS.na2d_avt.default, (weights, v, window))


@pytest.mark.parametrize(
    ("kernel", "dilation", "message"),
    [
        (7, 2, "kernel_size 7 x dilation 2 exceeds the height 8 of the map: use a dilation of at most 1"),
        (4, 1, "kernel_size 4 is even"),
        (0, 1, "at least 1"),
    ],
)
def test_bad_windows(kernel, dilation, message):
    q = torch.zeros(1, 8, 9, 1, 4)
    with pytest.raises(ValueError, match=message):
        na2d(q, q, q, kernel, dilation)


def test_bad_shapes():
    q = torch.zeros(1, 8, 8, 2, 4)
    with pytest.raises(ValueError, match="one shape"):
        na2d(q, q[..., :2], q, 3)
    with pytest.raises(ValueError, match="one shape"):
        na2d(q[0], q[0], q[0], 3)
    with pytest.raises(ValueError, match="rpb must be"):
        na2d(q, q, q, 3, rpb=torch.zeros(2, 3, 3))
    with pytest.raises(ValueError, match="heads"):
        hydra_na2d(q, q, q, [Partition(1, 3)])


def test_meta_tensors_have_shapes():
    """Plain `meta` tensors, not only fake ones: what counting operations or planning memory runs on."""
    q = torch.empty(2, 8, 12, 2, 16, device="meta")
    assert na2d(q, q, q, 3).shape == q.shape
