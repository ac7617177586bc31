"""The CUDA kernels, executed on the CPU in CUDA's execution model (tests/support/cuda), against the references."""

import itertools
import json
import os
import subprocess
import sys
from math import prod
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.cuda import faults, harness
from support.op_cases import (
    ATTENTION_GRID,
    FILTERS,
    attention_inputs,
    attention_orders,
    error,
    random_tensor,
    two_orders,
    zero_insertion,
)

from torch_utils import ops
from torch_utils.ops.bias_act import bias_act
from torch_utils.ops.bias_act.activations import ACTIVATIONS
from torch_utils.ops.build import library, toolchain
from torch_utils.ops.neighborhood_attention import Partition, hydra_na2d, na2d
from torch_utils.ops.upfirdn2d import upfirdn2d

ROOT = Path(__file__).parents[2]
ORDERS = (0, 1, 7)  # as numbered, reversed, shuffled
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
STORED_AS = {"double": torch.float64, "float": torch.float32, "HalfBits": torch.float16, "BFloat16Bits": torch.bfloat16}


def _missing():
    try:
        library.build(harness.recipe())
    except toolchain.BuildError as e:
        return str(e)
    return None


@pytest.fixture(scope="module", autouse=True)
def _emulated():
    missing = _missing()
    if missing:
        pytest.skip(f"the CUDA sources can't be built for the CPU: {missing}")
    with harness.executing(), ops.use("compiled"):
        yield


def check(compute, want, dtype, orders=ORDERS):
    """compute() gives what is wanted, and the same bits in whatever order the threads of a block run."""
    results = []
    for order in orders:
        harness.set_order(order)
        results.append(compute())
    harness.set_order(0)
    for others in zip(*results):
        assert all(torch.equal(t, others[0]) for t in others), "the result depends on the order of threads: a race"
    largest = max([1.0, *(float(t.detach().abs().max()) for t in want if t.numel())])
    for got, expected in zip(results[0], want, strict=True):
        assert got.dtype == dtype
        is_zero = not (expected.detach().abs() > 1e-12).any()  # a difference of terms of the size of the other results
        assert error(got, expected) < TOLERANCES[dtype] * (largest if is_zero else 1)


# --- neighbourhood attention -----------------------------------------------------------------------------------------


def products(case):
    """Multiplications of one pass of attention: how long a case takes here."""
    shape, kernel, _ = case
    return prod(shape) * prod(kernel)


@pytest.mark.parametrize(("shape", "kernel", "dilation"), [case for case in ATTENTION_GRID if products(case) < 1e6])
def test_attention_on_the_grid(shape, kernel, dilation):
    tensors = attention_inputs(shape, kernel, torch.float32)
    want = attention_orders("ref", [t.double() for t in tensors], kernel, dilation)
    check(lambda: attention_orders("compiled", tensors, kernel, dilation), want, torch.float32, orders=(1,))


@pytest.mark.soak
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("shape", "kernel", "dilation"), ATTENTION_GRID)
def test_attention_on_the_grid_in_all_orders(shape, kernel, dilation, dtype):
    tensors = attention_inputs(shape, kernel, dtype)
    want = attention_orders("ref", [t.double() for t in tensors], kernel, dilation)
    check(lambda: attention_orders("compiled", tensors, kernel, dilation), want, dtype)


def attention_channels(dtype):
    """Those of every team size, and one that no team fits."""
    per_lane = 16 // dtype.itemsize
    return [per_lane * lanes for lanes in (1, 2, 4, 8, 16, 32)] + [per_lane + 1]


def attend(tensors, dilation=2):
    """Output and gradients (of the inputs' dtype) of a fixed function, then QK, AV and AV^T."""
    leaves = [t.clone().requires_grad_() for t in tensors]
    y = na2d(*leaves[:3], 3, dilation, rpb=leaves[3])
    first = torch.autograd.grad(y, leaves, torch.linspace(-1, 1, y.numel()).view_as(y).to(y.dtype))
    q, k, v, window = *tensors[:3], [3, 3, dilation, dilation]
    qk = torch.ops.styleloom.na2d_qk(q, k, window)
    weights = torch.linspace(-1, 1, qk.numel()).view_as(qk).to(qk.dtype)
    return [
        y,
        *first,
        qk,
        torch.ops.styleloom.na2d_av(weights, v, window),
        torch.ops.styleloom.na2d_avt(weights, v, window),
    ]


def rounded(tensors, dtype):
    """What kernels of a dtype see, in float64."""
    return [t.detach().to(dtype).double() for t in tensors]


def attention_of_every_instance(dtype):
    for channels in attention_channels(dtype):
        tensors = [t.to(dtype) for t in attention_inputs((1, 6, 7, 2, channels), (3, 3), torch.float64)]
        leaves = [t.double().requires_grad_() for t in tensors]
        with ops.use("ref"):
            y = na2d(*leaves[:3], 3, 2, rpb=leaves[3])
        grad = torch.linspace(-1, 1, y.numel()).view_as(y).to(dtype).double()
        want = [y, *torch.autograd.grad(y, leaves, grad)]
        q, k, v = (t.double() for t in tensors[:3])
        check(lambda: attend(tensors), [*want, *_products(q, k, v, dtype)], dtype)


def _products(q, k, v, dtype):
    """QK, AV and AV^T by the ops' default kernels, in float64."""
    window, default = [3, 3, 2, 2], torch._C.DispatchKeySet(torch._C.DispatchKey.CompositeExplicitAutograd)
    names = torch.ops.styleloom
    qk = names.na2d_qk.default.redispatch(default, q, k, window)
    weights = torch.linspace(-1, 1, qk.numel()).view_as(qk).to(dtype).double()
    return [qk, *(op.default.redispatch(default, weights, v, window) for op in (names.na2d_av, names.na2d_avt))]


def test_attention_of_strided_inputs_and_partitions():
    qkv = torch.randn(2, 12, 15, 3, 5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rpb = torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def compute(implementation):
        leaves = [qkv.clone().requires_grad_(), rpb.clone().requires_grad_()]
        partitions = [Partition(1, 3, (4, 5)), Partition(2, (5, 3), (2, 1), leaves[1]), Partition(2, 7)]
        with ops.use(implementation):
            y = hydra_na2d(*leaves[0].unbind(3), partitions)
            flipped = hydra_na2d(*(t.transpose(1, 2) for t in leaves[0].unbind(3)), [Partition(5, 3)])
        return [y, flipped, *torch.autograd.grad(y.square().sum() + flipped.sum(), leaves)]

    check(lambda: compute("compiled"), compute("ref"), torch.float64)


def attention_fuzz(data):
    def draw(low, high):
        return data.draw(st.integers(low, high))

    kernel, dilation = (2 * draw(0, 2) + 1, 2 * draw(0, 2) + 1), (draw(1, 3), draw(1, 3))
    height, width = (k * d + draw(0, 5) for k, d in zip(kernel, dilation))
    shape = (draw(1, 2), height, width, draw(1, 3), data.draw(st.sampled_from([1, 2, 3, 4, 6, 8, 16])))
    tensors = attention_inputs(shape, kernel, torch.float32, draw(0, 99))
    want = attention_orders("ref", [t.double() for t in tensors], kernel, dilation)
    check(lambda: attention_orders("compiled", tensors, kernel, dilation), want, torch.float32, orders=(draw(0, 9),))


FUZZ = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck), "database": None}
test_attention_fuzz = settings(max_examples=6, **FUZZ)(given(st.data())(attention_fuzz))
test_attention_fuzz_at_length = pytest.mark.soak(settings(max_examples=150, **FUZZ)(given(st.data())(attention_fuzz)))


# --- bias_act and upfirdn2d ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_bias_act_on_the_grid(act, dtype):
    cases = [
        ((2, 3, 5, 7), 1, None, None),  # one at a time
        ((2, 3, 4, 8), 1, 1.1, None),  # sixteen bytes at a time, one bias value for all
        ((4, 8), 1, 0.7, 2.0),  # sixteen bytes, a bias value each
        ((3, 5, 2), -1, 0.4, None),
        ((6,), 0, None, 0.5),
    ]
    for shape, dim, clamp, gain in cases:
        x, b = random_tensor(*shape, dtype=dtype) * 2, random_tensor(shape[dim], seed=1, dtype=dtype)

        def apply(x, b, dim=dim, gain=gain, clamp=clamp):
            return bias_act(x, b, dim, act, gain=gain, clamp=clamp)

        want = two_orders("ref", apply, [x.double(), b.double()])
        check(lambda: two_orders("compiled", apply, [x, b]), want, dtype, orders=(0, 1))


def bias_act_of_every_instance(dtype):
    names = torch.ops.styleloom
    default = torch._C.DispatchKeySet(torch._C.DispatchKey.CompositeExplicitAutograd)
    for shape in ((2, 3, 5), (2, 3, 16), (0, 3, 4)):
        x, g, g2 = (random_tensor(*shape, seed=i).to(dtype) for i in range(3))
        b, options = random_tensor(3, seed=3).to(dtype), (1, 3, 0.0, 1.5, 0.9)
        for bias in (None, b):
            calls = [(names.bias_act.default, (x, bias, *options))]
            calls += [(names.bias_act_grad.default, (g, second, x, bias, *options, False)) for second in (None, g2)]
            for op, arguments in calls:
                wide = [t.double() if isinstance(t, torch.Tensor) else t for t in arguments]
                want = op.redispatch(default, *wide)
                check(lambda op=op, a=arguments: [op(*a)], [want], dtype)


def test_bias_act_of_any_layout():
    x, b = random_tensor(3, 8, 5, 6), random_tensor(8, seed=1)
    for view in (x.to(memory_format=torch.channels_last), x.transpose(2, 3), x[:, :, ::2, 1:], x[:1, :, :1, :1]):
        with ops.use("ref"):
            want = bias_act(view, b, act="swish", clamp=1.0)
        check(lambda view=view: [bias_act(view, b, act="swish", clamp=1.0)], [want], torch.float64)


@pytest.mark.parametrize("name", FILTERS)
def test_upfirdn2d_against_the_definition(name):
    f, x = FILTERS[name], random_tensor(1, 2, 9, 21)
    rates = [(1, 1), (2, 2), (3, 1), (1, 4)]
    for up, down, (pad, flip) in itertools.product(rates, rates, [((6, 5, 6, 5), False), ((11, 0, -1, 14), True)]):
        want = zero_insertion(x, f.double(), up, down, pad, flip, 1.5)
        check(lambda: [upfirdn2d(x, f.double(), up, down, pad, flip, 1.5)], [want], torch.float64, orders=(0, 1))


def test_upfirdn2d_where_channels_come_last():
    x = random_tensor(2, 9, 8, 11).to(memory_format=torch.channels_last)
    f = FILTERS["odd"].double()
    for up, down in (((2, 2), (1, 1)), ((1, 1), (2, 3))):
        want = zero_insertion(x, f, up, down, (6, 5, 6, 5), False, 1.5)
        check(
            lambda u=up, d=down: [upfirdn2d(x, f, u, d, (6, 5, 6, 5), False, 1.5)], [want], torch.float64, orders=(0,)
        )


def upfirdn2d_of_every_instance(dtype):
    x, f = random_tensor(2, 3, 9, 12).to(dtype), FILTERS["odd"] / 100
    want = zero_insertion(x.double(), f.double(), (2, 1), (1, 3), (2, 3, 1, 2), False, 1.0)
    check(lambda: [upfirdn2d(x, f, (2, 1), (1, 3), (2, 3, 1, 2))], [want], dtype)


# --- the library as a whole ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", STORED_AS)
def test_every_instance_of_every_kernel(stored):
    """The library's list of instances is written by the compiler: none can be forgotten here."""
    before = harness.launches()
    for kernels in (attention_of_every_instance, bias_act_of_every_instance, upfirdn2d_of_every_instance):
        kernels(STORED_AS[stored])
    after = harness.launches()
    instances = [name for name in after if name.partition("<")[2].startswith((f"{stored},", f"{stored}>"))]
    assert len(instances) == 32
    assert len(after) == len(STORED_AS) * len(instances)
    assert [name for name in instances if after[name] == before[name]] == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit_numbers_round_as_torch_does(dtype):
    """The stand-ins of CUDA's headers, on all numbers and, of the halves of the smallest, on ties."""
    every = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(dtype)
    every = every[~every.isnan()]
    for gain in (1.0, 0.5, 1.01, 300.0):
        got = bias_act(every, act="linear", gain=gain)
        assert torch.equal(got, (every.float() * torch.tensor(gain)).to(dtype))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What becomes of each planted fault."""
    paths = {}
    for name, (source, text, instead, _) in faults.FAULTS.items():
        paths[str(harness.build_with_fault(source, (text, instead), tmp_path_factory.mktemp("fault") / "csrc"))] = name
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, "-m", "support.cuda.faults", *paths]
    out = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    return {paths[path]: what for path, what in map(json.loads, out.splitlines())}


@pytest.mark.parametrize("name", faults.FAULTS)
def test_planted_faults_are_caught(name, outcomes):
    assert faults.FAULTS[name][3] in outcomes[name]


def test_the_good_library_solves_the_faults_problem():
    tensors = attention_inputs(faults.SHAPE, faults.KERNEL, torch.float32)
    want = faults.problem("ref", [t.double() for t in tensors])
    check(lambda: faults.problem("compiled", tensors), want, torch.float32)
