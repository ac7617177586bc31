"""bias_act, upfirdn2d and conv2d_resample: compiled kernels against the references, gradients, registration."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.op_cases import FILTERS, error, random_tensor, two_orders, zero_insertion

from torch_utils import ops
from torch_utils.ops.bias_act import bias_act, registered
from torch_utils.ops.bias_act.activations import ACTIVATIONS
from torch_utils.ops.build import library
from torch_utils.ops.conv2d_resample import conv2d_resample
from torch_utils.ops.upfirdn2d import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d

OPS = torch.ops.styleloom
needs_kernels = pytest.mark.skipif(not library.ensure("cpu").loaded, reason="no compiled kernels here")


# --- bias_act --------------------------------------------------------------------------------------------------------


@needs_kernels
@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_bias_act_against_the_reference(act, dtype):
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    for shape, dim, clamp, gain in [
        ((2, 3, 5, 7), 1, None, None),
        ((4, 6), 1, 0.7, 2.0),
        ((3, 5, 2), -1, 0.4, None),
        ((6,), 0, None, 0.5),
    ]:
        x, b = random_tensor(*shape, dtype=dtype) * 2, random_tensor(shape[dim], seed=1, dtype=dtype)

        def apply(x, b, dim=dim, gain=gain, clamp=clamp):
            return bias_act(x, b, dim, act, gain=gain, clamp=clamp)

        expected = two_orders("ref", apply, [x.double(), b.double()])
        for got, want in zip(two_orders("compiled", apply, [x, b]), expected):
            assert got.dtype == dtype
            assert error(got, want) < tolerance, (act, shape)


@pytest.mark.parametrize("implementation", ["ref", "auto"])
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_bias_act_gradcheck(act, implementation):
    x, b = random_tensor(2, 3, 4).requires_grad_(), random_tensor(3, seed=1).requires_grad_()

    def apply(x, b):
        with ops.use(implementation):
            return bias_act(x, b, act=act, clamp=1.3)

    torch.autograd.gradcheck(apply, (x, b))
    torch.autograd.gradgradcheck(apply, (x, b))


@needs_kernels
def test_bias_act_memory_layouts():
    x, b = random_tensor(3, 8, 5, 6), random_tensor(8, seed=1)
    views = [x.to(memory_format=torch.channels_last), x.transpose(2, 3), x[:, :, ::2, 1:], x[:0], x[:1, :, :1, :1]]
    for view in views:
        with ops.use("ref"):
            want = bias_act(view, b, act="swish", clamp=1.0)
        got = bias_act(view, b, act="swish", clamp=1.0)
        assert error(got, want) < 1e-12
        if view.is_contiguous(memory_format=torch.channels_last):
            assert got.is_contiguous(memory_format=torch.channels_last)


@needs_kernels
def test_bias_act_gradient_in_another_layout_than_the_output():
    grads = []
    for implementation in ("ref", "compiled"):
        leaf = random_tensor(3, 8, 5, 6).to(memory_format=torch.channels_last).requires_grad_()
        with ops.use(implementation):
            y = bias_act(leaf, random_tensor(8, seed=1), act="lrelu")
        grads.append(torch.autograd.grad(y, leaf, random_tensor(3, 8, 5, 6, seed=2))[0])
    assert error(grads[1], grads[0]) < 1e-12


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_bias_act_sixteen_bits(dtype):
    x, b = random_tensor(2, 3, 9).to(dtype), random_tensor(3, seed=1).to(dtype)
    y = bias_act(x, b, act="tanh")
    with ops.use("ref"):
        want = bias_act(x.double(), b.double(), act="tanh")
    assert y.dtype == dtype
    assert error(y, want) < torch.finfo(dtype).eps


@pytest.mark.parametrize("implementation", ["ref", "auto"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("clamp", [256 * 0.5**0.5, 0.1, 0.3, 1 / 3, 100.3])
def test_bias_act_gradient_is_zero_where_the_clamp_acts(clamp, dtype, implementation):
    """Also where the stored output was rounded to a value below the clamp (bfloat16 has 181.0 for 181.02)."""
    x = torch.tensor([4, -4, 0.25, -0.25], dtype=dtype) * clamp
    for act in ("linear", "relu", "lrelu"):
        leaf = x.clone().requires_grad_()
        with ops.use(implementation):
            bias_act(leaf, act=act, alpha=1.0, gain=1.0, clamp=clamp).sum().backward()
        assert leaf.grad.tolist() == [0, 0, 1, 0 if act == "relu" else 1], act


def test_bias_act_default_gradient_kernel_at_a_rounded_clamp():
    """What runs without compiled kernels: the output 181.0 stands for the clamp 181.02."""
    y, clamp = torch.tensor([181.0, -181.0, 180.0], dtype=torch.bfloat16), 256 * 0.5**0.5
    grad = registered.reference_gradient(torch.ones_like(y), None, y, None, 0, 0, 0.0, 1.0, clamp, True)
    assert grad.tolist() == [0, 0, 1]


@pytest.mark.parametrize("implementation", ["ref", "auto"])
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_bias_act_keeps_nan(act, implementation):
    """And lets its gradient show, so that training's check for non-finite values sees it."""
    for clamp in (None, 1.0):
        x = torch.tensor([float("nan"), 0.5, -0.5, 3.0] * 9)
        with ops.use(implementation):
            y = bias_act(x, act=act, clamp=clamp)
        assert y.isnan().tolist() == [True, False, False, False] * 9


def test_bias_act_saves_no_second_copy():
    """The output serves for the backward pass of (leaky) ReLU, so the input may be freed."""
    y = bias_act(random_tensor(2, 3).requires_grad_(), act="lrelu", clamp=1.0)
    assert y.grad_fn is not None
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.data_ptr()) or t, lambda t: t):
        x = random_tensor(2, 3).requires_grad_()
        y = bias_act(x, act="lrelu", clamp=1.0)
    assert saved == [y.data_ptr()]


def test_third_derivative_of_bias_act_is_refused_by_name():
    x = random_tensor(4).requires_grad_()
    (first,) = torch.autograd.grad(bias_act(x, act="tanh").sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="third derivative of tanh"):
        torch.autograd.grad(second.sum(), x)


def test_bias_act_refuses_what_it_cannot_do():
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="unknown activation 'gelu'"):
        bias_act(x, act="gelu")
    with pytest.raises(ValueError, match="doesn't fit"):
        bias_act(x, torch.zeros(4))
    with pytest.raises(ValueError, match="negative"):
        bias_act(x, clamp=-1)


# --- upfirdn2d -------------------------------------------------------------------------------------------------------


@needs_kernels
@pytest.mark.parametrize("name", FILTERS)
def test_upfirdn2d_against_the_definition(name):
    f = FILTERS[name]
    x = random_tensor(2, 3, 9, 21)
    rates = [(1, 1), (2, 2), (3, 1), (1, 4)]
    for up, down, pad, flip in itertools.product(rates, rates, [(6, 5, 6, 5), (11, 0, -1, 14)], [False, True]):
        want = zero_insertion(x, f, up, down, pad, flip, 1.5)
        for implementation in ("ref", "compiled"):
            with ops.use(implementation):
                assert error(upfirdn2d(x, f, up, down, pad, flip, 1.5), want) < 1e-6, (implementation, up, down, pad)


@needs_kernels
@pytest.mark.parametrize("name", FILTERS)
def test_upfirdn2d_where_channels_come_last(name):
    """Another kernel, with the same sums; images of few channels are laid out again instead."""
    f = FILTERS[name]
    rates = [(1, 1), (2, 2), (3, 1), (1, 4)]
    for channels in (3, 8, 21):
        x = random_tensor(2, channels, 9, 14).to(memory_format=torch.channels_last)
        for up, down, pad, flip in itertools.product(rates, rates, [(6, 5, 6, 5), (11, 0, -1, 14)], [False, True]):
            y = upfirdn2d(x, f, up, down, pad, flip, 1.5)
            assert error(y, zero_insertion(x, f, up, down, pad, flip, 1.5)) < 1e-6, (channels, up, down, pad)
            assert y.is_contiguous(memory_format=torch.channels_last) or channels < 8


@needs_kernels
@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("name", FILTERS)
def test_bfloat16_is_summed_in_float32_and_rounded_once(name, is_last):
    layout = torch.channels_last if is_last else torch.contiguous_format
    x = random_tensor(2, 9, 13, 14).bfloat16().to(memory_format=layout)
    b = random_tensor(9, seed=1).bfloat16()
    wide = x.float()
    for up, down in [((1, 1), (2, 2)), ((2, 2), (1, 1)), ((3, 2), (1, 3))]:
        got, want = (upfirdn2d(t, FILTERS[name].float(), up, down, (6, 5, 6, 5)) for t in (x, wide))
        assert torch.equal(got, want.bfloat16())
    got, want = (bias_act(t, b, act="swish", gain=1.3, clamp=0.7) for t in (x, wide))
    assert torch.equal(got, want.bfloat16())
    bad = torch.tensor([torch.nan, torch.inf, -torch.inf, 3.4e38, 1e-40], dtype=torch.bfloat16)
    assert torch.equal(bias_act(bad, gain=1.0).nan_to_num(7), bad.nan_to_num(7))


@needs_kernels
@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_upfirdn2d_fuzz(data):
    def draw(low, high):
        return data.draw(st.integers(low, high))

    f = [  # the last is of rank one
        lambda: random_tensor(draw(1, 6), draw(1, 6), seed=draw(0, 9)),
        lambda: random_tensor(draw(1, 14), seed=draw(0, 9)),
        lambda: random_tensor(draw(1, 6), seed=draw(0, 9)).outer(
            random_tensor(draw(1, 6), seed=draw(0, 9))
        ),  # of rank one
    ][draw(0, 2)]()
    x = random_tensor(draw(0, 2), draw(1, 9), draw(1, 20), draw(1, 40), seed=draw(0, 9))
    x = x.to(memory_format=[torch.contiguous_format, torch.channels_last][draw(0, 1)])
    options = {
        "up": (draw(1, 4), draw(1, 4)),
        "down": (draw(1, 5), draw(1, 5)),
        "padding": [draw(-3, 14) for _ in range(4)],
        "flip_filter": bool(draw(0, 1)),
    }
    try:
        y = upfirdn2d(x, f, **options)
    except ValueError:
        return  # smaller than the filter
    expected = two_orders("ref", lambda x: upfirdn2d(x, f, **options), [x])
    assert error(y, expected[0]) < 1e-11
    for got, want in zip(two_orders("compiled", lambda x: upfirdn2d(x, f, **options), [x]), expected):
        assert error(got, want) < 1e-11


@needs_kernels
@pytest.mark.parametrize(
    "f", [random_tensor(4).outer(random_tensor(5, seed=1)), torch.zeros(3, 3, dtype=torch.float64)]
)
def test_filters_of_rank_one_and_almost(f):
    """Two passes serve a filter only if they give the filter back."""
    x, nearly = random_tensor(2, 3, 9, 21), f.clone()
    nearly[1, 2] += 1e-9
    for taps in (f, nearly):
        for up, down in [((1, 1), (2, 2)), ((2, 2), (1, 1))]:
            want = zero_insertion(x, taps, up, down, (4, 3, 2, 4), False, 1.0)
            assert error(upfirdn2d(x, taps, up, down, (4, 3, 2, 4)), want) < 1e-13
    broken = f.clone()
    broken[0, 0] = torch.nan
    assert upfirdn2d(x, broken, down=2).isnan().all()


@pytest.mark.parametrize("implementation", ["ref", "auto"])
def test_upfirdn2d_gradcheck(implementation):
    x, f = random_tensor(1, 2, 5, 6).requires_grad_(), random_tensor(3, 4, seed=1)

    def apply(x):
        with ops.use(implementation):
            return upfirdn2d(x, f, (2, 3), (3, 2), [2, -1, 3, 4], gain=2.0)

    torch.autograd.gradcheck(apply, x)
    torch.autograd.gradgradcheck(apply, x)


@pytest.mark.parametrize("name", FILTERS)
def test_sizes_of_the_resamplers(name):
    f, x = FILTERS[name], random_tensor(1, 2, 8, 10)
    assert filter2d(x, f).shape == (1, 2, 8, 10)
    assert upsample2d(x, f).shape == (1, 2, 16, 20)
    assert upsample2d(x, f, up=(3, 1)).shape == (1, 2, 8, 30)
    assert downsample2d(x, f).shape == (1, 2, 4, 5)


def test_resamplers_keep_a_constant():
    x = torch.ones(1, 1, 12, 12)
    f = setup_filter([1, 3, 3, 1])
    for y in (filter2d(x, f), upsample2d(x, f), downsample2d(x, f)):
        assert torch.allclose(y[..., 2:-2, 2:-2], torch.ones(()))


def test_upfirdn2d_layouts_dtypes_and_filter_gradient():
    x, f = random_tensor(2, 4, 8, 8, dtype=torch.float32), setup_filter([1, 3, 3, 1])
    want = upsample2d(x, f)
    assert error(upsample2d(x.to(memory_format=torch.channels_last), f), want) == 0
    assert error(upsample2d(x.transpose(2, 3), f), upsample2d(x.transpose(2, 3).contiguous(), f)) == 0
    half = upsample2d(x.bfloat16(), f)
    assert half.dtype == torch.bfloat16
    assert error(half, want) < 0.01
    f.requires_grad_()
    (grad,) = torch.autograd.grad(upsample2d(x, f).sum(), f)
    assert grad.abs().min() > 0


def test_upfirdn2d_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="N, C, H, W"):
        upfirdn2d(torch.zeros(3, 4), None)
    with pytest.raises(ValueError, match="smaller than the filter"):
        upfirdn2d(torch.zeros(1, 1, 2, 2), setup_filter([1, 3, 3, 1]))
    with pytest.raises(ValueError, match="up must be at least 1"):
        upfirdn2d(torch.zeros(1, 1, 2, 2), None, up=0)
    with pytest.raises(ValueError, match="one or two axes"):
        setup_filter([])


# --- conv2d_resample -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (2, 2), (3, 1)])
@pytest.mark.parametrize("flip_weight", [True, False])
def test_conv2d_resample_is_upsample_convolve_downsample(kernel, up, down, flip_weight):
    x, w, f = random_tensor(2, 4, 8, 7), random_tensor(6, 2, kernel, kernel, seed=1), setup_filter([1, 2, 3, 1])
    pad = [kernel // 2, kernel // 2, kernel // 2 + 1, kernel // 2]
    y = conv2d_resample(x, w, f, up, down, pad, groups=2, flip_weight=flip_weight)
    reach = [0, 0, 0, 0]
    if up > 1:
        reach = [r + s for r, s in zip(reach, [(4 + up - 1) // 2, (4 - up) // 2] * 2)]
    if down > 1:
        reach = [r + s for r, s in zip(reach, [(4 - down + 1) // 2, (4 - down) // 2] * 2)]
    big = zero_insertion(
        x, f if up > 1 else setup_filter(None), (up, up), (1, 1), [p + r for p, r in zip(pad, reach)], False, up**2
    )
    want = F.conv2d(big, w if flip_weight else w.flip([2, 3]), groups=2)
    if down > 1:
        want = zero_insertion(want, f, (1, 1), (down, down), (0, 0, 0, 0), False, 1.0)
    assert error(y, want) < 1e-6


# --- registration and reproducibility --------------------------------------------------------------------------------


def test_opcheck():
    x, b = torch.randn(2, 3, 4, 5).requires_grad_(), torch.randn(3).requires_grad_()
    g, g2 = torch.randn(2, 3, 4, 5).requires_grad_(), torch.randn(2, 3, 4, 5).requires_grad_()
    for act in (2, 3):
        options = (1, act, 0.2, 1.5, 0.9)
        torch.library.opcheck(OPS.bias_act.default, (x, b, *options))
        torch.library.opcheck(OPS.bias_act_grad.default, (g, None, x, b, *options, False))
    torch.library.opcheck(OPS.bias_act_grad.default, (g, g2, x.detach(), None, 1, 3, 0.0, 1.0, None, False))
    last = torch.randn(2, 9, 4, 5).to(memory_format=torch.channels_last).requires_grad_()
    for image in (x, last):
        args = (image, torch.randn(4, 4), [2, 1], [1, 2], [2, 1, 2, 1], False, 4.0)
        torch.library.opcheck(OPS.upfirdn2d.default, args)


@needs_kernels
def test_bitwise_reproducible_whatever_the_threads():
    x, b, f = (
        random_tensor(8, 16, 33, 35, dtype=torch.float32),
        random_tensor(16, dtype=torch.float32),
        setup_filter([1, 3, 3, 1]),
    )
    threads = torch.get_num_threads()
    try:
        runs = []
        for count in (1, 2):
            torch.set_num_threads(count)
            runs.append([bias_act(x, b, act="swish"), upsample2d(x, f), downsample2d(x, f)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*runs))


def test_compiled_penalty_matches_eager():
    """torch.compile of a whole gradient penalty, written with torch.func.grad."""
    f, b = setup_filter([1, 3, 3, 1]), torch.randn(3)
    library.ensure("cpu")

    def score(x):
        return bias_act(downsample2d(x, f), b, act="lrelu", clamp=3.0).square().sum()

    def penalty(x):
        return torch.func.grad(score)(x).square().sum()

    x = torch.randn(1, 3, 8, 8)
    want = torch.func.grad(penalty)(x)
    got = torch.compile(torch.func.grad(penalty), backend="aot_eager")(x)
    assert error(got, want) < 1e-5
    leaf = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(score(leaf), leaf, create_graph=True)
    assert error(torch.autograd.grad(first.square().sum(), leaf)[0], want) < 1e-5
