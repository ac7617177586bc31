"""The plain GPU bodies, compiled for the host, against the references: the rules that GPUs follow, tested on CPUs."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from support.golden import rel_err

from torch_utils.ops.neighborhood_attention import reference as attention_reference
from torch_utils.ops.upfirdn2d import reference as upfirdn2d_reference

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@pytest.fixture(scope="module")
def bodies(tmp_path_factory):
    library = tmp_path_factory.mktemp("bodies") / "bodies.so"
    source = Path(__file__).parents[1] / "support/cuda/host_bodies.cpp"
    subprocess.run(["g++", "-std=c++17", "-O1", "-Wall", "-shared", "-fPIC", source, "-o", library], check=True)
    return ctypes.CDLL(str(library))


def _pointer(t):
    return None if t is None else ctypes.c_void_p(t.data_ptr())


def _sizes(*values):
    return (ctypes.c_int64 * len(values))(*values)


@pytest.mark.parametrize(
    ("shape", "kernel", "dilation", "biased"),
    [
        ((2, 5, 7, 2, 3), (3, 5), (1, 1), True),
        ((1, 10, 9, 1, 4), (5, 3), (2, 3), True),
        ((1, 4, 4, 2, 2), (4, 4), (1, 1), True),
        ((1, 9, 14, 1, 1), (3, 7), (3, 2), False),
    ],
)
def test_attention(bodies, shape, kernel, dilation, biased):
    gen = torch.Generator().manual_seed(0)
    q, k, v, g = (torch.randn(shape, generator=gen, dtype=torch.float64, requires_grad=True) for _ in range(4))
    rpb = torch.randn(shape[3], 2 * kernel[0] - 1, 2 * kernel[1] - 1, generator=gen, dtype=torch.float64)
    rpb = rpb if biased else None
    out, lse = attention_reference.na2d(q, k, v, rpb, kernel, dilation, 0.4)
    expected = [out, lse, *torch.autograd.grad(out, [q, k, v], g)]
    actual = [torch.zeros_like(t) for t in expected]
    delta = torch.zeros_like(lse)
    bodies.attention_bodies(
        _sizes(*shape, *kernel, *dilation),
        ctypes.c_double(0.4),
        *(_pointer(t) for t in (q, k, v, rpb, g, *actual[:2], delta, *actual[2:])),
    )
    for got, want in zip(actual, expected):
        assert rel_err(got, want) < 1e-12


@pytest.mark.parametrize(
    ("up", "down", "pad"),
    [((1, 1), (1, 1), (2, 1, 0, 3)), ((2, 3), (1, 2), (-2, 3, 4, 1)), ((3, 2), (2, 5), (5, 5, 1, 1))],
)
def test_upfirdn2d(bodies, up, down, pad):
    gen = torch.Generator().manual_seed(0)
    x, f = torch.randn(1, 3, 8, 6, generator=gen).double(), torch.randn(4, 5, generator=gen).double()
    want = upfirdn2d_reference.upfirdn2d(x, f, up, down, pad, True, 1.0)
    got = torch.zeros_like(want).contiguous()
    sizes = (3, 8, 6, *want.shape[2:], *up, *down, pad[0], pad[2], 5, 4)
    bodies.upfirdn_body(_sizes(*sizes), _pointer(x), _pointer(f), _pointer(got))
    assert rel_err(got, want) < 1e-12
