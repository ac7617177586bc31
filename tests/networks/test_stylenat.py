"""StyleNAT: exact sizes, partitions of heads, block types, what it refuses, second derivatives, value range."""

import dataclasses
import math

import pytest
import torch
from support.golden import rel_err
from torch.nn.attention import SDPBackend, sdpa_kernel

from dnnlib import UserError
from training import networks, presets
from training.networks.generators.stylenat import MLP, StyleNATConfig, hydra_groups, official_to_own, plan
from training.networks.generators.stylenat_attention import HydraAttention
from training.networks.generators.swin_attention import WindowPairAttention
from training.networks.shared.pixel_units import from_units, to_units

BLOCK_TYPES = ["nat", "swin", "transformer"]


def small(**changes) -> StyleNATConfig:
    """32x32 with real attention patterns, small enough for float64."""
    fields = {
        "z_dim": 16,
        "w_dim": 16,
        "mapping_layers": 2,
        "channels": [16, 16, 16, 8],
        "kernels": [[3], [3], [3, 5], [3]],
        "dilations": [[1], [1, 2], [1, 3], [1, 2, 4]],
        "output_norm": "none",
    }
    return StyleNATConfig(**{**fields, **changes})


def church256() -> StyleNATConfig:
    return dataclasses.replace(presets.PRESETS["church256"].build(256, 8).G, img_resolution=(256, 256))


def awake(G: torch.nn.Module) -> torch.nn.Module:
    """Weights large enough for everything to show in the image."""
    for name, p in G.named_parameters():
        if name.startswith("synthesis.") and ".style." not in name:
            torch.nn.init.normal_(p, std=0.3)
    return G


@pytest.mark.parametrize(
    ("cfg", "parameters"),
    [
        (StyleNATConfig(img_resolution=(256, 256)), 48_921_000),
        (StyleNATConfig(img_resolution=(1024, 1024)), 49_452_934),
        (church256(), 48_922_352),
        (StyleNATConfig(img_resolution=(256, 256), block_type="swin"), 48_929_512),
        (StyleNATConfig(img_resolution=(1024, 1024), channel_multiplier=1, block_type="swin"), 40_862_990),
    ],
    ids=["ffhq256", "ffhq1024", "church256", "swin256", "swin1024"],
)
def test_parameter_counts(cfg, parameters):
    with torch.device("meta"):
        G = networks.build(cfg)
    assert sum(p.numel() for p in G.parameters()) == parameters


def test_paper_dilations_are_the_default():
    cfg = StyleNATConfig(img_resolution=(1024, 1024))
    dilations = [[g.dilation for g in hydra_groups(cfg, s)] for s in plan(cfg)[1:]]
    assert dilations == [[1], [1, 2], [1, 4], [1, 8], [1, 16], [1, 32], [1, 64], [1, 128]]
    assert [s.channels for s in plan(cfg)] == [512, 512, 512, 512, 512, 256, 128, 64, 32]
    assert [s.heads for s in plan(cfg)] == [16, 16, 16, 16, 16, 8, 4, 4, 4]


def test_heads_that_do_not_divide_go_to_the_last_partitions():
    cfg = church256()
    last = plan(cfg)[6]
    assert last.heads == 8
    assert [(g.heads, g.dilation) for g in hydra_groups(cfg, last)] == [
        (1, 1),
        (1, 2),
        (1, 4),
        (1, 8),
        (2, 16),
        (2, 32),
    ]


@pytest.mark.parametrize("block_type", BLOCK_TYPES)
def test_every_style_matters_to_its_own_layer_and_surplus_ones_do_not(block_type):
    G = awake(networks.build(small(block_type=block_type)))
    ws = torch.randn(1, G.num_ws, 16)
    assert G.num_ws == 8
    outputs: list[torch.Tensor] = []
    for stage in G.synthesis.layers:
        for block in stage.blocks:
            block.register_forward_hook(lambda m, args, y: outputs.append(y))
    image = G.synthesis(ws)
    before = list(outputs)
    for i in range(G.num_ws):
        outputs.clear()
        changed = ws.clone()
        changed[:, i] += 1
        assert not torch.allclose(G.synthesis(changed), image), f"style {i} is not read"
        assert [torch.equal(a, b) for a, b in zip(before, outputs)] == [j < i for j in range(8)]
    assert torch.equal(G.synthesis(torch.cat([ws, torch.randn(1, 3, 16)], dim=1), noise_mode="none"), image)


@pytest.mark.parametrize("block_type", BLOCK_TYPES)
def test_path_length_gradient_is_right(block_type):
    """d/dw of |J^T y|^2 against a finite difference, in float64."""
    G = awake(networks.build(small(block_type=block_type))).double()
    ws = torch.randn(1, G.num_ws, 16, dtype=torch.float64) * 0.5
    direction = torch.randn_like(ws)
    y = torch.randn(1, 3, 32, 32, dtype=torch.float64)

    def length(w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        w = w.detach().requires_grad_(True)
        with sdpa_kernel(SDPBackend.MATH):
            (g,) = torch.autograd.grad((G.synthesis(w) * y).sum(), w, create_graph=True)
            (second,) = torch.autograd.grad(g.square().sum(), w)
        return g.square().sum().detach(), second

    _, second = length(ws)
    eps = 1e-5
    numeric = (length(ws + eps * direction)[0] - length(ws - eps * direction)[0]) / (2 * eps)
    assert float((second * direction).sum()) == pytest.approx(float(numeric), rel=1e-5)


def test_path_length_reaches_every_weight():
    G = awake(networks.build(small()))
    ws = torch.randn(2, G.num_ws, 16, requires_grad=True)
    (g,) = torch.autograd.grad(G.synthesis(ws).square().sum(), ws, create_graph=True)
    g.square().sum().backward()
    for name, p in G.synthesis.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name


@pytest.mark.parametrize("block_type", BLOCK_TYPES)
def test_checkpointing_changes_no_gradient(block_type):
    plain = awake(networks.build(small(block_type=block_type)))
    saving = networks.build(small(block_type=block_type, checkpoint=True))
    saving.load_state_dict(plain.state_dict())
    z = torch.randn(2, 16)
    for G in (plain, saving):
        G(z).square().sum().backward()
    theirs = dict(plain.named_parameters())
    for name, p in saving.named_parameters():
        assert torch.equal(p.grad, theirs[name].grad), name


def test_checkpointing_keeps_less_for_the_backward_pass():
    def kept(checkpoint: bool) -> int:
        G, sizes = networks.build(small(checkpoint=checkpoint)), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            G(torch.randn(2, 16))
        return sum(sizes)

    assert kept(True) < kept(False) / 3


def test_mlp_in_chunks_is_the_same_and_its_gelu_is_exact():
    mlp = MLP(4, 16).double()
    x = torch.randn(3, 64, 64, 4, dtype=torch.float64)
    hidden = mlp.fc1(x)
    expected = mlp.fc2(hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2)
    assert rel_err(mlp(x), expected) < 1e-12
    with torch.no_grad():
        assert rel_err(mlp(x), expected) < 1e-12


def test_truncation_uses_a_running_average():
    G = awake(networks.build(small()))
    G.mapping.update_w_avg(torch.randn(16) * 100)
    one, other = G(torch.randn(2, 16), truncation_psi=0)
    assert torch.equal(one, other)
    assert rel_err(one, G.synthesis(G.mapping.w_avg.expand(1, 8, 16))[0]) < 1e-5


def test_output_in_imagenet_units_is_shown_in_the_common_range():
    raw = awake(networks.build(small()))
    shown = networks.build(small(output_norm="imagenet"))
    shown.load_state_dict(raw.state_dict())
    z = torch.randn(2, 16)
    y = raw(z)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = 2 * (y * std.view(3, 1, 1) + mean.view(3, 1, 1)) - 1
    assert rel_err(shown(z), expected) < 1e-6
    assert expected.abs().max() > 1, "nothing is clamped, and here it would show"
    assert rel_err(to_units(expected, "imagenet"), y) < 1e-5
    assert from_units(y, "none") is y


@pytest.mark.parametrize("block_type", ["nat", "transformer"])
def test_non_square_start_and_output(block_type):
    cfg = small(start_resolution=(4, 6), img_resolution=(32, 48), block_type=block_type)
    G = networks.build(cfg)
    assert G(torch.randn(2, 16)).shape == (2, 3, 32, 48)
    assert G.img_size == (32, 48)


def test_labels_reach_the_image():
    G = awake(networks.build(small(c_dim=3)))
    z = torch.randn(1, 16)
    assert not torch.allclose(G(z, torch.eye(3)[:1]), G(z, torch.eye(3)[1:2]))


def test_any_number_of_stages():
    cfg = small(channels=[16, 16], kernels=None, dilations=None, img_resolution=(8, 8))
    G = networks.build(cfg)
    assert G.num_ws == 4
    assert G(torch.randn(1, 16)).shape == (1, 3, 8, 8)


def test_windows_of_the_swin_block_against_a_plain_loop():
    """Query by query: which keys it may see, and with which bias."""
    n, w, shift, dim = 16, 8, 4, 8
    attention = WindowPairAttention(dim, 4, (n, n), w, shift).double()
    for p in attention.parameters():
        torch.nn.init.normal_(p, std=0.5)
    x = torch.randn(1, n, n, dim, dtype=torch.float64)
    qkv = attention.qkv(x)[0]
    expected = torch.zeros(n, n, dim, dtype=torch.float64)
    cells = [(y, x) for y in range(n) for x in range(n)]
    for half in (0, 1):
        offset = half * shift
        for head in range(2):
            lo = half * 4 + head * 2
            q, k, v = (qkv[..., part * dim + lo : part * dim + lo + 2] for part in range(3))
            for y0, x0 in cells[::7]:
                seen = [
                    (y1, x1)
                    for y1, x1 in cells
                    # One window of the shifted grid, which the border cuts off: nothing wraps around.
                    if (y1 + w - offset) // w == (y0 + w - offset) // w
                    and (x1 + w - offset) // w == (x0 + w - offset) // w
                ]
                rows = [(y0 - y1 + w - 1) * (2 * w - 1) + x0 - x1 + w - 1 for y1, x1 in seen]
                keys = torch.stack([k[c] for c in seen])
                values = torch.stack([v[c] for c in seen])
                score = keys @ q[y0, x0] / math.sqrt(2) + attention.bias_table[half][rows, head]
                expected[y0, x0, lo : lo + 2] = score.softmax(0) @ values
    got = attention(x)[0].flatten(0, 1)[::7]
    assert rel_err(got, attention.proj(expected).flatten(0, 1)[::7]) < 1e-10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernels": [[3], [7], [7], [9]], "dilations": None}, r"stage 3 \(32x32\): kernel 9 x dilation 4 exceeds"),
        ({"kernels": [[3], [3], [4], [3]]}, r"stage 2 \(16x16\): kernel 4"),
        ({"kernels": [[3], [3], [3]]}, "G.kernels wants 4 lists"),
        ({"dilations": [[1], [1], [], [1]]}, "G.dilations has an empty list for stage 2"),
        ({"kernels": [[3], [3], [3, 3, 3], [3]]}, r"stage 2 \(16x16\): 3 kernels don't go with 2 dilations"),
        ({"dilations": [[1], [1], [1], [1] * 5], "kernels": None}, "5 partitions want as many heads, but it has 4"),
        ({"channels": [16, 16, 16]}, "G.channels wants 4"),
        ({"channels": [16, 16, 18, 8]}, r"stage 2 \(16x16\): 18 channels"),
        ({"img_resolution": (48, 48)}, "never reaches 48x48"),
        (
            {"block_type": "swin", "start_resolution": (4, 6), "img_resolution": (32, 48)},
            r"stage 0 \(4x6\): block_type",
        ),
        ({"output_norm": "imagenet", "img_channels": 1}, "G.output_norm=none"),
    ],
)
def test_impossible_configs_are_refused_in_one_line(changes, message):
    with pytest.raises(UserError, match=message) as e:
        networks.build(small(**changes))
    assert "\n" not in str(e.value)


def test_kernels_can_be_clipped_to_their_map():
    cfg = small(kernels=[[3], [9], [7], [9]], dilations=[[1], [1], [1, 3], [1, 4]], clip_kernels=True)
    stages = plan(cfg)[1:]
    assert [[g.kernel[0] for g in hydra_groups(cfg, s)] for s in stages] == [[7], [7, 5], [9, 7]]
    assert networks.build(cfg)(torch.randn(1, 16)).shape == (1, 3, 32, 32)


def test_first_stage_attends_fully_whatever_its_entry_says():
    G = networks.build(small(kernels=[[9], [3], [3], [3]]))
    attention = G.synthesis.layers[0].blocks[0].attn
    assert isinstance(attention, HydraAttention)
    assert attention.rpb[0].shape == (4, 7, 7)


def test_official_names():
    G = networks.build(small(mapping_layers=8))
    own = set(G.state_dict())
    pairs = {
        "style.8.bias": "mapping.fc7.bias",
        "layers.0.blocks.1.attn.rpb": "synthesis.layers.0.blocks.1.attn.rpb.0",
        "layers.2.blocks.0.attn.rpb.1": "synthesis.layers.2.blocks.0.attn.rpb.1",
        "layers.2.blocks.0.attn.rpb1": "synthesis.layers.2.blocks.0.attn.rpb.1",
        "layers.1.upsample.alpha": "synthesis.layers.1.upsample.alpha",
        "to_rgbs.3.bias": "synthesis.to_rgbs.3.bias",
        "layers.0.blocks.0.attn.relative_position_index": None,
        "layers.1.upsample.sin_pos_embed._float_tensor": None,
        "to_rgbs.0.upsample.kernel": None,
    }
    for official, expected in pairs.items():
        assert official_to_own(official) == expected
        assert expected is None or expected in own
    swin = set(networks.build(small(block_type="swin")).state_dict())
    assert official_to_own("layers.3.blocks.0.qkv.weight") in swin
    assert official_to_own("layers.3.blocks.0.attn.1.relative_position_bias_table") in swin
    assert official_to_own("layers.3.blocks.0.attn_mask2") is None
