"""Attention maps against independent computations from q and k, and against what the layers really output."""

import numpy as np
import pytest
import torch

from dnnlib import UserError
from training import networks
from training.networks.generators.styleformer import StyleformerConfig
from training.networks.generators.styleformer_c import StyleformerCConfig
from training.networks.generators.stylegan2 import StyleGAN2Config
from training.networks.generators.stylenat import StyleNATConfig
from training.networks.generators.stylenat_attention import HeadGroup
from training.sampling.attention.maps import attention_maps, layer_maps, neighbourhood, token_at
from training.sampling.attention.picture import choose_layers, heat_colours, overlay

SMALL = {"z_dim": 16, "w_dim": 16, "mapping_layers": 1}


def styleformer(**changes):
    cfg = {"g_dict": [32, 16, 16], "num_layers": [1, 2, 1], "depth": 8, **SMALL, **changes}
    return networks.build(StyleformerConfig(**cfg))


def stylenat(**changes):
    cfg = {"channels": [16, 16, 16, 16], "img_resolution": (32, 32), **SMALL, **changes}
    G = networks.build(StyleNATConfig(**cfg))
    for name, p in G.named_parameters():  # fresh attention is almost uniform: make it choose
        if "qkv.weight" in name or "rpb" in name or "bias_table" in name:
            torch.nn.init.normal_(p)
    return G


def styles(G):
    return torch.randn(1, G.num_ws, G.w_dim)


@pytest.mark.parametrize("at", [None, (0.0, 0.99), (0.5, 0.4)])
@pytest.mark.parametrize(
    ("build", "layers"),
    [
        (styleformer, ["8x8.0", "16x16.0", "16x16.1", "32x32.0"]),
        (stylenat, [f"{s}x{s}.{i}" for s in (4, 8, 16, 32) for i in (0, 1)]),
        (lambda: stylenat(block_type="transformer"), [f"{s}x{s}.{i}" for s in (4, 8, 16, 32) for i in (0, 1)]),
        (lambda: stylenat(block_type="swin"), [f"{s}x{s}.{i}" for s in (4, 8, 16, 32) for i in (0, 1)]),
    ],
)
def test_maps_are_distributions_over_the_keys(build, layers, at):
    G = build()
    ws = styles(G)
    image, maps = attention_maps(G, ws, at)
    assert list(maps) == layers
    assert torch.equal(image, G.synthesis(ws, noise_mode="const"))
    for name, m in maps.items():
        assert "x".join(map(str, m.shape[1:])) == name.partition(".")[0]
        assert m.min() >= 0
        torch.testing.assert_close(m.sum([1, 2]), torch.ones(len(m)), atol=1e-5, rtol=0)


def nat_layer(**changes):
    return stylenat(**changes).synthesis.layers[1].blocks[0].attn


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (lambda: styleformer().synthesis.b8_0.enc, [(1, 64, 32), (1, 16)]),
        (nat_layer, [(1, 8, 8, 16)]),
        (lambda: nat_layer(block_type="swin"), [(1, 8, 8, 16)]),
    ],
)
def test_mean_map_is_the_mean_over_single_queries(layer, inputs):
    layer, inputs = layer(), [torch.randn(shape) for shape in inputs]
    places = [((y + 0.5) / 8, (x + 0.5) / 8) for y in range(8) for x in range(8)]
    rows = torch.stack([layer_maps(layer, at, *inputs) for at in places])
    torch.testing.assert_close(rows.mean(0), layer_maps(layer, None, *inputs), atol=1e-6, rtol=1e-4)


def test_styleformer_maps_agree_with_attention_computed_from_q_and_k():
    layer = styleformer().synthesis.b16_1.enc
    x, w = torch.randn(1, 256, 16), torch.randn(1, 16)
    s1, s2 = layer.affine1(w).chunk(2, dim=1)
    q, k, _ = layer.qkv(x, s1, s2)
    query = 5 * 16 + 11
    m = layer_maps(layer, (5.5 / 16, 11.5 / 16), x, w, "none")
    for h in range(2):
        qh, kh = (t[0, :, 8 * h : 8 * h + 8].double() for t in (q, k))
        scores = kh @ qh[query] / 8**0.5
        expected = scores.exp() / scores.exp().sum()
        torch.testing.assert_close(m[h].flatten().double(), expected, atol=1e-6, rtol=1e-4)


def test_linformer_maps_are_the_weights_of_the_values():
    """The derivative of the attended output with respect to the values is what the map should be."""
    layer = styleformer(linformer=True).synthesis.b32_0.enc
    x, w = torch.randn(1, 1024, 16), torch.randn(1, 16)
    q, k, v = layer.qkv(x, *layer.affine1(w).chunk(2, dim=1))
    v = v.detach().requires_grad_(True)
    out = layer._attend(q, k, v)
    query = 20 * 32 + 3
    m = layer_maps(layer, (20.5 / 32, 3.5 / 32), x, w, "none")
    for h in range(2):
        (gradient,) = torch.autograd.grad(out[0, query, 8 * h], v, retain_graph=True)
        torch.testing.assert_close(gradient[0, :, 8 * h], m[h].flatten(), atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("at", [(0, 0), (15, 15), (7, 8), (3, 14)])
def test_dilated_neighbourhood_agrees_with_a_brute_force_one(at):
    """Every key of the query's dilation group, ranked by distance: the nearest K per axis."""
    kernel, dilation = 5, 3
    q, k = torch.randn(2, 1, 16, 16, 2, 8)
    rpb = torch.randn(2, 2 * kernel - 1, 2 * kernel - 1)
    m = neighbourhood(q, k, HeadGroup(2, (kernel, kernel), dilation), rpb, at)

    def nearest(i):
        group = [j for j in range(16) if j % dilation == i % dilation]
        return sorted(sorted(group, key=lambda j: abs(j - i))[:kernel])

    expected = torch.full([2, 16, 16], -torch.inf)
    for y in nearest(at[0]):
        for x in nearest(at[1]):
            dy, dx = (y - at[0]) // dilation, (x - at[1]) // dilation
            score = (q[0, at[0], at[1]] * k[0, y, x]).sum(1) / 8**0.5
            expected[:, y, x] = score + rpb[:, dy + kernel - 1, dx + kernel - 1]
    expected = expected.flatten(1).softmax(1).view(2, 16, 16)
    torch.testing.assert_close(m, expected, atol=1e-6, rtol=1e-5)
    assert (m > 0).sum() == 2 * kernel**2


@pytest.mark.parametrize("block_type", ["nat", "swin", "transformer"])
def test_stylenat_maps_are_the_weights_of_the_values(block_type):
    """Values that are zero but at one position come out, at the query, times that position's weight."""
    G = stylenat(block_type=block_type, kernels=[[3], [3], [3], [7]], dilations=[[1], [1, 2], [1, 4], [1, 4]])
    layer = G.synthesis.layers[2].blocks[1].attn
    x = torch.randn(1, 16, 16, 16, dtype=torch.float64)
    layer.double()
    at = (6, 9)
    m = layer_maps(layer, ((at[0] + 0.5) / 16, (at[1] + 0.5) / 16), x)
    outputs = []
    layer.proj = torch.nn.Identity()
    with torch.no_grad():
        for key in [(6, 9), (6, 8), (2, 9), (10, 1), (7, 12)]:
            hooked = layer.qkv.register_forward_hook(lambda _, i, o, key=key: _only_value(o, key))
            outputs.append((layer(x)[0, at[0], at[1]], m[:, key[0], key[1]]))
            hooked.remove()
    for out, weight in outputs:
        torch.testing.assert_close(out.view(len(weight), -1)[:, 0], weight, atol=1e-9, rtol=1e-7)


def _only_value(qkv, key):
    """The third third of the channels: zero, but ones at `key`."""
    v = torch.zeros_like(qkv[..., 32:])
    v[:, key[0], key[1]] = 1
    return torch.cat([qkv[..., :32], v], dim=3)


def test_the_picture_of_a_single_query_shows_the_dilated_neighbourhood():
    """On a black image, colour stands at every second position around the query, and nowhere else."""
    q, k = torch.randn(2, 1, 16, 16, 1, 8)
    m = neighbourhood(q, k, HeadGroup(1, (5, 5), 2), None, (7, 6))
    shown = np.asarray(overlay(torch.zeros(3, 16, 16, dtype=torch.uint8), m[0], None, 4)).max(2)
    lit = {(y, x) for y in range(16) for x in range(16) if (shown[4 * y : 4 * y + 4, 4 * x : 4 * x + 4] > 4).all()}
    window = {(y, x) for y in range(3, 12, 2) for x in range(2, 11, 2)}
    assert lit <= window
    assert len(lit) >= 24  # the smallest weight may be as dark as nothing
    brightest = max(lit, key=lambda at: int(shown[4 * at[0], 4 * at[1]]))
    assert m[0][brightest] == m.max()


def test_overlay_marks_the_query_and_survives_even_attention():
    image = torch.full((1, 8, 12), 200, dtype=torch.uint8)
    picture = np.asarray(overlay(image, torch.full((4, 6), 1 / 24), (0.5, 0.99), 2))
    assert picture.shape == (16, 24, 3)
    assert picture[8, 20].tolist() == [0, 255, 255]
    assert (picture[:8] == picture[0, 0]).all()


def test_colours_grow_lighter_with_the_weight():
    light = heat_colours(np.linspace(0, 1, 50)) @ [0.3, 0.6, 0.1]
    assert (np.diff(light) > 0).all()


def test_layers_are_chosen_by_name_or_size():
    maps = {name: torch.ones(1, 1, 1) for name in ("8x8.0", "16x16.0", "16x16.1")}
    assert list(choose_layers(maps, [])) == list(maps)
    assert list(choose_layers(maps, ["16x16"])) == ["16x16.0", "16x16.1"]
    assert list(choose_layers(maps, ["16x16.1", "8x8"])) == ["8x8.0", "16x16.1"]
    with pytest.raises(UserError, match="no layer 32x32"):
        choose_layers(maps, ["32x32"])


def test_styleformer_c_shows_its_attention_layers():
    G = networks.build(
        StyleformerCConfig(
            g_dict=[16, 16],
            num_layers=[1, 1],
            depth=8,
            channel_base=256,
            start_resolution=(4, 6),
            img_resolution=(16, 24),
            **SMALL,
        )
    )
    image, maps = attention_maps(G, styles(G), (0.9, 0.1))
    assert image.shape == (1, 3, 16, 24)
    assert [tuple(m.shape) for m in maps.values()] == [(2, 4, 6), (2, 8, 12)]


def test_network_without_attention_is_refused():
    G = networks.build(StyleGAN2Config(channel_base=64, **SMALL))
    with pytest.raises(UserError, match="no attention"):
        attention_maps(G, styles(G))


def test_points_fall_on_tokens():
    assert token_at((0, 0.999), (8, 12)) == (0, 11)
    assert token_at((0.5, 1.0), (8, 12)) == (4, 11)
    assert token_at((0.26, 0.74), (4, 4)) == (1, 2)
