"""Dense attention, with a backward pass of its own where the processor has matrix units, with torch's elsewhere.

So these tests hold on any processor; on one without matrix units they compare torch with itself."""

import pytest
import torch
import torch.nn.functional as F
from support.op_cases import random_tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from torch_utils import ops
from torch_utils.ops.attention import attention
from torch_utils.ops.attention.public import can_run
from torch_utils.ops.attention.registered import is_available
from torch_utils.ops.build import library

OPS = torch.ops.styleloom
HAS_IT = library.ensure("cpu").loaded and is_available()
needs_it = pytest.mark.skipif(not HAS_IT, reason="this processor has no bfloat16 products")
ROUNDING = 2**-8  # of bfloat16
SHAPES = [(2, 3, 64, 64, 32), (1, 2, 256, 96, 8), (2, 1, 32, 544, 40), (1, 1, 320, 256, 128)]  # N, heads, L, M, D


def split_heads(n, heads, length, channels, seed, dtype=torch.bfloat16):
    """As networks have them: heads are parts of a token's channels, here of a wider tensor's."""
    wide = random_tensor(n, length, 3 * heads * channels, seed=seed).to(dtype)
    return wide[..., : heads * channels].unflatten(2, (heads, channels)).transpose(1, 2)


def inputs(shape, dtype=torch.bfloat16):
    n, heads, queries, keys, channels = shape
    return [split_heads(n, heads, length, channels, i, dtype) for i, length in enumerate((queries, keys, keys))]


def with_gradients(function, tensors):
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    out = function(*leaves)
    grad = random_tensor(*out.shape, seed=9).to(out.dtype)
    return [out, *torch.autograd.grad(out, leaves, grad)]


def relative(a, b):
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("shape", SHAPES)
def test_against_float64(shape):
    tensors = inputs(shape)
    want = with_gradients(F.scaled_dot_product_attention, [t.double() for t in tensors])
    for name, a, b in zip(("out", "q", "k", "v"), with_gradients(attention, tensors), want):
        assert relative(a, b) < 2 * ROUNDING, name


@needs_it
@pytest.mark.parametrize("shape", SHAPES)
def test_the_kernel_against_its_default(shape):
    """The default kernel is the same formula in float32 and in one piece."""
    q, k, v = inputs(shape)
    assert can_run(q, k, v)
    out, lse = OPS.attention(q, k, v)
    grad = random_tensor(*out.shape, seed=9).bfloat16()
    delta = (grad.float() * out.float()).sum(3)
    default = torch._C.DispatchKeySet(torch._C.DispatchKey.CompositeExplicitAutograd)
    want = OPS.attention_backward.default.redispatch(default, grad, q, k, v, lse, delta)
    for a, b in zip(OPS.attention_backward(grad, q, k, v, lse, delta), want):
        assert relative(a, b) < 2 * ROUNDING
        assert a.stride() == b.stride()


def test_the_default_kernel_is_the_gradient():
    """In float32, where nothing rounds: the formula itself."""
    q, k, v = inputs((1, 2, 24, 40, 8), torch.float32)
    out, *want = with_gradients(F.scaled_dot_product_attention, [q, k, v])
    lse = (q @ k.transpose(2, 3) / 8**0.5).logsumexp(3)
    grad = random_tensor(*out.shape, seed=9).float()
    default = torch._C.DispatchKeySet(torch._C.DispatchKey.CompositeExplicitAutograd)
    delta = (grad * out).sum(3)
    got = OPS.attention_backward.default.redispatch(default, grad, q, k, v, lse, delta)
    for a, b in zip(got, want):
        assert relative(a, b) < 1e-5


@needs_it
def test_opcheck():
    q, k, v = (t.requires_grad_() for t in inputs(SHAPES[0]))
    torch.library.opcheck(OPS.attention.default, (q, k, v), test_utils=("test_schema", "test_faketensor"))
    out, lse = (t.detach() for t in OPS.attention(q, k, v))
    arguments = (torch.ones_like(out), *(t.detach() for t in (q, k, v)), lse, lse.clone())
    torch.library.opcheck(OPS.attention_backward.default, arguments)


@needs_it
def test_bitwise_reproducible_whatever_the_threads():
    results, threads = [], torch.get_num_threads()
    for count in (1, 3):
        torch.set_num_threads(count)
        results.append(with_gradients(attention, inputs(SHAPES[0])))
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results))


@needs_it
def test_its_second_derivative_is_refused_by_name():
    """Not zero, nor another wrong number."""
    q, k, v = (t.requires_grad_() for t in inputs(SHAPES[0]))
    (first,) = torch.autograd.grad(attention(q, k, v).float().sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match="has no derivative: put `with sdpa_kernel"):
        first.float().square().sum().backward()


def test_what_it_leaves_to_torch():
    q, k, v = inputs(SHAPES[0])
    for tensors in (inputs((1, 1, 48, 64, 32)), inputs((1, 1, 64, 64, 12)), [t.float() for t in (q, k, v)]):
        assert not can_run(*tensors)
        assert attention(*tensors).shape == tensors[0].shape
    with torch.no_grad():
        assert not can_run(q, k, v)
    with ops.use("ref"):
        assert not can_run(q, k, v)
    with sdpa_kernel(SDPBackend.MATH):
        assert not can_run(q, k, v)
        leaf = q.detach().clone().requires_grad_()
        (first,) = torch.autograd.grad(attention(leaf, k, v).sum(), leaf, create_graph=True)
        assert torch.autograd.grad(first.square().sum(), leaf)[0].isfinite().all()  # twice differentiable
