"""The ops against tensors that the original programs computed, and against gradcheck in float64."""

import pytest
import torch
from support.golden import load, rel_err, state

from torch_utils import ops
from torch_utils.ops.bias_act import bias_act
from torch_utils.ops.bias_act.activations import ACTIVATIONS
from torch_utils.ops.neighborhood_attention import Partition, hydra_na2d, na2d
from torch_utils.ops.upfirdn2d import setup_filter, upfirdn2d

IMPLEMENTATIONS = ["ref", "auto"]
UPFIRDN_CASES = {
    "up2": ("f1331", {"up": 2, "padding": [2, 1, 2, 1], "gain": 4}),
    "down2": ("f1331", {"down": 2, "padding": [1, 1, 1, 1]}),
    "up3down2": ("f2d", {"up": 3, "down": 2, "padding": [2, 1, 3, 0], "gain": 2.5}),
    "crop": ("f1331", {"padding": [-1, 2, 3, -2]}),
    "flip": ("f2d", {"up": [2, 1], "down": [1, 2], "padding": [1, 1, 1, 1], "flip_filter": True}),
}


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request):
    with ops.use(request.param):
        yield request.param


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_bias_act(act, implementation):
    data = load("op_bias_act")
    x, b = data["x"].requires_grad_(), data["b"].requires_grad_()
    y = bias_act(x, b, act=act, clamp=1.0)
    (y * data[f"{act}/R"]).sum().backward()
    assert rel_err(y, data[f"{act}/y"]) < 1e-6
    assert rel_err(bias_act(x, b, act=act), data[f"{act}/y_noclamp"]) < 1e-6
    assert rel_err(x.grad, data[f"{act}/gx"]) < 2e-6
    assert rel_err(b.grad, data[f"{act}/gb"]) < 2e-6


def test_setup_filter():
    data = load("op_upfirdn2d")
    assert rel_err(setup_filter([1, 3, 3, 1]), data["f1331"]) < 1e-7
    assert rel_err(setup_filter([[1, 2, 1], [0, 3, 1]]), data["f2d"]) < 1e-7
    assert setup_filter([1.0] * 8).shape == (8,)


@pytest.mark.parametrize("case", UPFIRDN_CASES)
def test_upfirdn2d(case, implementation):
    data = load("op_upfirdn2d")
    f, options = UPFIRDN_CASES[case]
    x = data["x"].requires_grad_()
    y = upfirdn2d(x, data[f], **options)
    (y * data[f"{case}/R"]).sum().backward()
    assert rel_err(y, data[f"{case}/y"]) < 1e-6
    assert rel_err(x.grad, data[f"{case}/gx"]) < 1e-6


def _attend(data, attention, heads):
    """qkv projection, attention, output projection, as in the module the golden file was computed with."""
    params = {name: t.requires_grad_() for name, t in state(data).items() if t.is_floating_point()}
    x = data["in/x"].requires_grad_()
    qkv = torch.nn.functional.linear(x, params["qkv.weight"], params["qkv.bias"]).unflatten(-1, (3, heads, -1))
    y = attention(*qkv.unbind(3), params).flatten(3)
    y = torch.nn.functional.linear(y, params["proj.weight"], params["proj.bias"])
    (y * data["extra/R"]).sum().backward()
    assert rel_err(y, data["out/y"]) < 1e-6
    assert rel_err(x.grad, data["grad/x"]) < 1e-5
    for name, parameter in params.items():
        assert rel_err(parameter.grad, data[f"extra/gradp/{name}"]) < 2e-5, name


@pytest.mark.parametrize(
    ("name", "heads", "windows"),
    [
        ("stylenat_hydra_na_clean", 4, [(3, 1), (5, 3)]),
        ("stylenat_hydra_na_k7_d2", 2, [(7, 1), (7, 2)]),
    ],
)
def test_hydra(name, heads, windows, implementation):
    share = heads // len(windows)

    def attention(q, k, v, params):
        partitions = [Partition(share, kernel, d, params[f"rpb.{i}"]) for i, (kernel, d) in enumerate(windows)]
        return hydra_na2d(q, k, v, partitions)

    _attend(load(name), attention, heads)


def test_full_attention_of_a_4x4_map(implementation):
    _attend(load("stylenat_mhsarpb4"), lambda q, k, v, params: na2d(q, k, v, 4, rpb=params["rpb"]), 4)
