"""Networks: exact sizes, noise modes, style use, odd image sizes, what they refuse."""

import pytest
import torch
from support.golden import rel_err
from torch.nn.attention import SDPBackend, sdpa_kernel

from dnnlib import UserError
from training import networks, presets
from training.networks.discriminators.stylegan2 import StyleGAN2DiscriminatorConfig
from training.networks.generators.styleformer import StyleformerConfig
from training.networks.generators.stylegan2 import StyleGAN2Config
from training.networks.shared.layers import minibatch_std
from training.networks.shared.mapping import MappingNetwork


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def small_styleformer(**changes) -> torch.nn.Module:
    cfg = {"w_dim": 32, "z_dim": 32, "mapping_layers": 2, "depth": 8, "g_dict": [32, 16, 16], "num_layers": [1, 2, 2]}
    G = networks.build(StyleformerConfig(**{**cfg, **changes}))
    for name, p in G.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(p, 0.3)
    return G


@pytest.mark.parametrize(
    ("changes", "resolution", "parameters"),
    [
        ({"g_dict": [1024, 512, 512], "num_layers": [1, 3, 3]}, (32, 32), 18_369_040),
        ({"g_dict": [256, 64, 16], "num_layers": [1, 2, 2]}, (32, 32), 1_334_142),
        ({"g_dict": [256, 64, 16], "num_layers": [1, 3, 3]}, (32, 32), 1_438_064),
        ({"g_dict": [1024, 256, 64], "num_layers": [1, 3, 3], "start_resolution": (12, 12)}, (48, 48), 7_966_096),
        (
            {"g_dict": [1024, 256, 64, 64], "num_layers": [1, 2, 1, 1], "linformer": True, "mapping_layers": 8},
            (64, 64),
            8_567_505 + 1_575_936,
        ),
        (
            {"g_dict": [1024, 256, 64, 64, 64], "num_layers": [1, 2, 1, 1, 1], "linformer": True, "mapping_layers": 8},
            (128, 128),
            13_929_621 + 1_575_936,
        ),
    ],
)
def test_styleformer_parameter_counts(changes, resolution, parameters):
    cfg = StyleformerConfig(**{"mapping_layers": 2, **changes}, img_resolution=resolution)
    assert count(networks.build(cfg)) == parameters


def test_discriminator_parameter_count_of_the_readme_configuration():
    assert count(networks.build(StyleGAN2DiscriminatorConfig(architecture="orig"))) == 20_720_641


@pytest.mark.parametrize(
    ("name", "side", "parameters"),
    [("stl10", 48, 7_966_096), ("celeba", 64, 8_567_505), ("church", 128, 13_929_621)],
)
def test_preset_generators_have_the_published_size(name, side, parameters):
    G = presets.PRESETS[name].build(side, 1).G
    G.img_resolution = (side, side)
    assert G.mapping_layers == 8
    assert count(networks.build(G)) == parameters + 6 * 262_656


@pytest.mark.parametrize("kind", ["styleformer", "stylegan2"])
def test_noise_modes(kind):
    if kind == "styleformer":
        G = small_styleformer()
    else:
        G = networks.build(StyleGAN2Config(w_dim=32, z_dim=32, channel_base=256, mapping_layers=2))
        for name, p in G.named_parameters():
            if name.endswith("noise_strength"):
                torch.nn.init.constant_(p, 0.3)
    z = torch.randn(2, 32)
    none, const = G(z, noise_mode="none"), G(z, noise_mode="const")
    assert torch.equal(none, G(z, noise_mode="none"))
    assert torch.equal(const, G(z, noise_mode="const"))
    assert not torch.allclose(none, const)
    assert not torch.allclose(G(z, noise_mode="random"), G(z, noise_mode="random"))


@pytest.mark.parametrize("kind", ["styleformer", "stylegan2"])
def test_every_style_matters_and_surplus_ones_do_not(kind):
    if kind == "styleformer":
        G = small_styleformer()
    else:
        G = networks.build(StyleGAN2Config(w_dim=32, z_dim=32, channel_base=256, mapping_layers=2))
    ws = torch.randn(1, G.num_ws, 32)
    y = G.synthesis(ws, noise_mode="none")
    for i in range(G.num_ws):
        changed = ws.clone()
        changed[:, i] += 1
        assert not torch.allclose(G.synthesis(changed, noise_mode="none"), y), f"style {i} is not read"
    surplus = torch.cat([ws, torch.randn(1, 3, 32)], dim=1)
    assert torch.equal(G.synthesis(surplus, noise_mode="none"), y)


@pytest.mark.parametrize("linformer", [False, True])
def test_default_attention_kernel_agrees_with_the_twice_differentiable_one(linformer):
    G = small_styleformer(linformer=linformer)
    ws = torch.randn(2, G.num_ws, 32)
    fast = G.synthesis(ws, noise_mode="none")
    fast_grads = torch.autograd.grad(fast.square().sum(), list(G.synthesis.parameters()), allow_unused=True)
    with sdpa_kernel(SDPBackend.MATH):
        plain = G.synthesis(ws, noise_mode="none")
        plain_grads = torch.autograd.grad(plain.square().sum(), list(G.synthesis.parameters()), allow_unused=True)
    assert rel_err(fast, plain) < 1e-5
    for a, b in zip(fast_grads, plain_grads):
        assert (a is None) == (b is None)
        if a is not None and b.abs().max() > 1e-3:
            assert rel_err(a, b) < 2e-4


def test_non_square_start_and_output():
    G = small_styleformer(start_resolution=(6, 10), img_resolution=(24, 40))
    assert G.synthesis(torch.randn(2, G.num_ws, 32)).shape == (2, 3, 24, 40)
    assert G.img_size == (24, 40)


def test_stylegan2_path_length_gradient_is_right():
    """d/dw of |J^T y| against a finite difference, in float64."""
    G = networks.build(StyleGAN2Config(w_dim=8, z_dim=8, channel_base=64, channel_max=8, mapping_layers=1)).double()
    _check_second_derivative(G)


def test_styleformer_path_length_gradient_is_right():
    _check_second_derivative(small_styleformer().double())


def _check_second_derivative(G: torch.nn.Module) -> None:
    ws = torch.randn(1, G.num_ws, G.w_dim, dtype=torch.float64) * 0.5
    direction = torch.randn_like(ws)
    y = torch.randn(1, 3, 32, 32, dtype=torch.float64)

    def length(w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        w = w.detach().requires_grad_(True)
        with sdpa_kernel(SDPBackend.MATH):
            (g,) = torch.autograd.grad((G.synthesis(w, noise_mode="none") * y).sum(), w, create_graph=True)
            value = g.square().sum()
            (second,) = torch.autograd.grad(value, w)
        return value.detach(), second

    eps = 1e-6
    _, second = length(ws)
    numeric = (length(ws + eps * direction)[0] - length(ws - eps * direction)[0]) / (2 * eps)
    assert float((second * direction).sum()) == pytest.approx(float(numeric), rel=1e-4)


@pytest.mark.parametrize("architecture", ["orig", "skip", "resnet"])
@pytest.mark.parametrize(("size", "last"), [((48, 48), 3), ((32, 32), 4), ((96, 160), 3)])
def test_discriminator_takes_any_size_that_halves(architecture, size, last):
    cfg = StyleGAN2DiscriminatorConfig(
        architecture=architecture, img_resolution=size, channel_base=512, channel_max=16, c_dim=3
    )
    D = networks.build(cfg)
    assert D(torch.randn(4, 3, *size), torch.eye(3)[[0, 1, 2, 0]]).shape == (4, 1)
    assert D.b4.fc.weight.shape[1] == 16 * last * (last if size[0] == size[1] else 5)


def test_label_changes_the_discriminators_verdict():
    D = networks.build(StyleGAN2DiscriminatorConfig(channel_base=256, channel_max=16, c_dim=2))
    img = torch.randn(4, 3, 32, 32)
    one, two = torch.eye(2)[[0] * 4], torch.eye(2)[[1] * 4]
    assert not torch.allclose(D(img, one), D(img, two))


def test_freeze_layers_stops_the_first_ones_only():
    D = networks.build(StyleGAN2DiscriminatorConfig(channel_base=256, channel_max=16, freeze_layers=3))
    frozen = {name.rsplit(".", 1)[0] for name, p in D.named_parameters() if not p.requires_grad}
    assert frozen == {"b32.fromrgb", "b32.conv0", "b32.conv1"}


def test_minibatch_std_groups_take_every_nth_image():
    x = torch.randn(6, 4, 3, 3)
    y = minibatch_std(x, group_size=2)
    assert y.shape == (6, 5, 3, 3)
    for i in range(3):
        expected = x[[i, i + 3]].std(dim=0, unbiased=False).mean()
        assert y[i, 4, 0, 0].item() == pytest.approx(expected.item(), rel=1e-4)
        assert torch.equal(y[i, 4], y[i + 3, 4])
    assert minibatch_std(torch.randn(5, 4, 3, 3), group_size=4).shape == (5, 5, 3, 3)


def test_truncation_moves_the_first_styles_towards_the_average():
    mapping = MappingNetwork(z_dim=8, c_dim=0, w_dim=8, num_ws=4, num_layers=1)
    mapping.w_avg.copy_(torch.randn(8))
    z = torch.randn(3, 8)
    full, half = mapping(z), mapping(z, truncation_psi=0.5, truncation_cutoff=2)
    assert torch.allclose(half[:, :2], (full[:, :2] + mapping.w_avg) / 2, atol=1e-6)
    assert torch.equal(half[:, 2:], full[:, 2:])


def test_style_mixing_switches_to_a_second_latent():
    G = small_styleformer()
    z = torch.randn(64, 32)
    ws = G.mixed_styles(z, None, probability=0.9)
    first = G.mapping(z)
    same = (ws == first).all(dim=2)
    assert same[:, 0].all()
    mixed = ~same.all(dim=1)
    # As in the original a switch falls on 1 to layers + resolutions - 1 = 7; from 6 styles on it shows nothing.
    assert 0.45 < mixed.float().mean() < 0.82
    for row in same[mixed]:
        assert row.int().diff().abs().sum() == 1, "an image switches once"
    assert torch.equal(G.mixed_styles(z, None, probability=0), first)


@pytest.mark.parametrize(
    ("cfg", "word"),
    [
        (StyleformerConfig(g_dict=[32, 16]), "g_dict wants 3"),
        (StyleformerConfig(num_layers=[1, 2]), "num_layers wants 3"),
        (StyleformerConfig(img_resolution=(48, 48)), "never reaches 48x48"),
        (StyleformerConfig(g_dict=[34, 16, 16], depth=8), "can't be split"),
        (StyleGAN2Config(img_resolution=(36, 36)), "never reaches 36x36"),
        (StyleGAN2DiscriminatorConfig(img_resolution=(37, 37)), "can't halve 37x37"),
    ],
)
def test_impossible_sizes_are_refused_in_one_line(cfg, word):
    with pytest.raises(UserError, match=word) as e:
        networks.build(cfg)
    assert "\n" not in str(e.value)
