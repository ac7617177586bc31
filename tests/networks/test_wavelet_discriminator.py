"""Wavelet discriminator: exact sizes, the Haar transform, spectral normalisation, R1, units, labels, odd sizes."""

import pytest
import torch
import torch.nn.functional as F
from support.golden import rel_err

from dnnlib import UserError
from training import networks
from training.networks.discriminators.wavelet import WaveletDiscriminatorConfig, haar, stored_official_name
from training.networks.shared.pixel_units import IMAGENET_STD, to_units
from training.networks.shared.spectral_norm import SpectralLinear, SpectralNorm, advance_power_iteration


def small(**changes) -> WaveletDiscriminatorConfig:
    return WaveletDiscriminatorConfig(**{"channels": [8, 12, 12], "input_norm": "none", **changes})


@pytest.mark.parametrize(("side", "parameters"), [(256, 26_211_585), (1024, 27_736_641)])
def test_parameter_counts(side, parameters):
    with torch.device("meta"):
        D = networks.build(WaveletDiscriminatorConfig(img_resolution=(side, side)))
    assert sum(p.numel() for p in D.parameters()) == parameters


def test_haar_is_filtering_with_its_two_taps():
    x = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    low = torch.tensor([1.0, 1.0], dtype=torch.float64) / 2**0.5
    high = torch.tensor([-1.0, 1.0], dtype=torch.float64) / 2**0.5
    # Rows, then columns; a true convolution, so the taps are flipped.
    kernels = [low.outer(low), high.outer(low), low.outer(high), high.outer(high)]
    weight = torch.stack([k.flip([0, 1]) for k in kernels])[:, None]
    expected = F.conv2d(x.reshape(6, 1, 8, 12), weight, stride=2).unflatten(0, (2, 3)).transpose(1, 2).flatten(1, 2)
    assert rel_err(haar(x), expected) < 1e-12
    assert haar(x).square().sum().item() == pytest.approx(x.square().sum().item()), "the transform is orthonormal"


def test_fresh_spectral_norm_is_right_in_eval_mode():
    """The original's is off by many orders of magnitude until it has been trained for a while."""
    D = networks.build(small()).eval()
    logits = D(torch.randn(8, 3, 32, 32))
    assert logits.abs().max() < 10
    for layer in D.modules():
        if isinstance(layer, SpectralNorm):
            largest = torch.linalg.matrix_norm(layer.normalized_weight().flatten(1), ord=2)
            assert largest.item() == pytest.approx(1, rel=0.03)


def test_running_the_discriminator_changes_nothing_in_it():
    D = networks.build(small()).train()
    before = {k: v.clone() for k, v in D.state_dict().items()}
    D(torch.randn(8, 3, 32, 32)).sum().backward()
    assert all(torch.equal(v, before[k]) for k, v in D.state_dict().items())


def test_power_iteration_follows_the_weights():
    layer = SpectralLinear(20, 10)
    u, s, v = torch.linalg.svd(torch.randn(10, 20), full_matrices=False)
    layer.weight_orig.data = u @ torch.diag(torch.linspace(3, 1, 10)) @ v
    assert torch.linalg.matrix_norm(layer.normalized_weight(), ord=2) > 1.05
    for _ in range(30):
        advance_power_iteration(layer)
    assert torch.linalg.matrix_norm(layer.normalized_weight(), ord=2).item() == pytest.approx(1, rel=1e-4)


def test_gradient_flows_through_the_norm_with_constant_vectors():
    layer = SpectralLinear(5, 4).double()
    assert torch.autograd.gradcheck(lambda w: w / (layer.weight_u @ w @ layer.weight_v), layer.weight_orig)
    direction = torch.randn(4, 5, dtype=torch.float64)
    (grad,) = torch.autograd.grad((layer.normalized_weight() * direction).sum(), layer.weight_orig)
    u, v, w = layer.weight_u, layer.weight_v, layer.weight_orig
    sigma = u @ w @ v
    expected = direction / sigma - (direction * w).sum() / sigma**2 * u.outer(v)
    assert rel_err(grad, expected) < 1e-12


@pytest.mark.parametrize("spectral", [False, True])
def test_r1_gradient_is_right(spectral):
    """d/dweights of |grad_x D|^2 against a finite difference, in float64."""
    D = networks.build(small(spectral_norm=spectral)).double()
    img = torch.randn(4, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    parameters = list(D.parameters())
    directions = [torch.randn_like(p) for p in parameters]

    def penalty() -> torch.Tensor:
        (g,) = torch.autograd.grad(D(img).sum(), img, create_graph=True)
        return g.square().sum()

    grads = torch.autograd.grad(penalty(), parameters, allow_unused=True)
    slope = sum(float((g * d).sum()) for g, d in zip(grads, directions) if g is not None)
    values, eps = [], 1e-9  # so small that no leaky ReLU changes sides
    for step in (eps, -2 * eps):
        for p, d in zip(parameters, directions):
            p.data += step * d
        values.append(penalty().item())
    assert slope == pytest.approx((values[0] - values[1]) / (2 * eps), rel=1e-4)


def test_input_in_imagenet_units():
    """Callers give [-1, 1]; the weights see ImageNet's units, as official ones expect."""
    raw, shown = networks.build(small()), networks.build(small(input_norm="imagenet"))
    shown.load_state_dict(raw.state_dict())
    img = torch.rand(4, 3, 32, 32) * 2 - 1
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = raw(((img + 1) / 2 - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    assert rel_err(shown(img), expected) < 1e-5
    assert to_units(img, "imagenet").std() == pytest.approx(float(img.std()) / (2 * sum(IMAGENET_STD) / 3), rel=0.1)


def test_labels_change_the_verdict():
    D = networks.build(small(c_dim=2, mapping_layers=2))
    img = torch.randn(4, 3, 32, 32)
    one, two = torch.eye(2)[[0] * 4], torch.eye(2)[[1] * 4]
    assert D(img, one).shape == (4, 1)
    assert not torch.allclose(D(img, one), D(img, two))


@pytest.mark.parametrize("size", [(8, 8), (48, 48), (96, 160)])
def test_any_size_that_halves(size):
    D = networks.build(WaveletDiscriminatorConfig(img_resolution=size, img_channels=1, input_norm="none"))
    assert D(torch.randn(4, 1, *size)).shape == (4, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": [8, 8]}, "D.channels wants 3"),
        ({"img_channels": 1, "input_norm": "imagenet"}, "D.input_norm=none"),
        ({"img_resolution": (37, 37)}, "can't halve 37x37"),
    ],
)
def test_impossible_configs_are_refused_in_one_line(changes, message):
    with pytest.raises(UserError, match=message) as e:
        networks.build(small(**changes))
    assert "\n" not in str(e.value)


def test_official_constants_are_recognised():
    for name in ("dwt.ll", "from_rgbs.1.iwt.hh", "from_rgbs.2.downsample.kernel", "convs.0.conv2.0.kernel"):
        assert stored_official_name(name) is None
    own = networks.build(small()).state_dict()
    for name in ("from_rgbs.1.conv.0.weight_orig", "convs.0.conv2.1.weight_u", "final_linear.2.bias"):
        assert stored_official_name(name) == name
        assert name in own
