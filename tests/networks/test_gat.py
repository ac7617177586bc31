"""GAT's networks: the original's numbers, gradients and sizes; position tables against direct formulas; classes."""

import math

import pytest
import torch
from support import golden, official_files

from dnnlib.errors import UserError
from training import networks
from training.config import TrainingConfig
from training.networks.discriminators.gat import GATDiscriminatorConfig
from training.networks.generators.gat import GATConfig, unpatchified
from training.networks.official.gat import own_discriminator_name, own_generator_name
from training.networks.shared.gat import MODEL_SIZES
from training.networks.shared.transformer import Rotary, position_embedding, rms_normalize
from training.sampling.attention.maps import attention_maps
from training.step.precision import apply_precision

SMALL = {"depth": 4, "width": 16, "heads": 2, "img_resolution": (6, 8)}


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """The golden discriminator is this file's; the golden generator has its sizes."""
    return networks.load(official_files.unpack("official_gat.pt", tmp_path_factory.mktemp("gat")))


def small_g(**changes):
    torch.manual_seed(0)
    return networks.build(GATConfig(**{"z_dim": 8} | SMALL | changes))


def small_d(**changes):
    torch.manual_seed(1)
    return networks.build(GATDiscriminatorConfig(**{"label_dim": 12} | SMALL | changes))


def check_gradients(module, expected, rename) -> None:
    """Large gradients keep every eighth row only; kernels of patch convolutions are matrices here."""
    parameters = dict(module.named_parameters())
    assert len(expected) == len(parameters)
    for name, value in expected.items():
        gradient = parameters[rename(name)].grad
        kept = gradient if len(gradient) == len(value) else gradient[::8]
        assert golden.rel_err(kept, value.reshape(kept.shape)) <= 2e-5, name


def test_golden_generator(official):
    data = golden.load("gat_generator")
    G = networks.build(official["G"].cfg)
    G.load_state_dict({own_generator_name(name): t for name, t in golden.state(data).items()})
    z, c = data["in/z"].requires_grad_(), torch.eye(5)[data["in/y"]]
    ws = G.mapping(z, c)
    levels = torch.stack(G.levels(ws))
    assert golden.rel_err(levels, data["out/levels"]) <= 1e-5
    assert torch.equal(G.synthesis(ws), levels[-1])
    assert golden.rel_err(G(z, c, truncation_psi=1 - 0.3), data["out/psi0.3"]) <= 1e-5
    assert golden.rel_err(G.synthesis(G.mapping(z, c, guidance=1.5)), data["out/guidance1.5"]) <= 1e-5
    (levels * data["extra/R"]).sum().backward()
    assert golden.rel_err(z.grad, data["grad/z"]) <= 2e-5
    check_gradients(G, golden.state(data, "extra/gradp/"), own_generator_name)

    means = torch.full([5, 32], math.nan)
    for y in data["in/y"].unique():
        means[y] = ws[data["in/y"] == y, 0].mean(0)
    G.mapping.update_w_avg(means)
    assert golden.rel_err(G.mapping.w_avg, data["extra/state_after/w_avg"]) <= 1e-6


def test_golden_discriminator(official):
    data, D = golden.load("gat_discriminator"), official["D"]
    D.requires_grad_(True).zero_grad()
    levels, c = data["in/levels"].requires_grad_(), torch.eye(5)[data["in/y"]]
    logits, of_class, of_grid = D.logits_and_features(list(levels), c)
    assert golden.rel_err(logits, data["out/logits"]) <= 1e-5
    assert torch.equal(D(list(levels), c), logits)
    assert golden.rel_err(of_class[:, None], data["out/feat_cls"]) <= 1e-5
    assert golden.rel_err(of_grid, data["out/feat_spatial"]) <= 1e-5
    weighted = (logits * data["extra/R"]).sum() + (of_class[:, None] * data["extra/R_cls"]).sum()
    (weighted + (of_grid * data["extra/R_spatial"]).sum()).backward()
    assert golden.rel_err(levels.grad, data["grad/levels"]) <= 2e-5
    check_gradients(D, golden.state(data, "extra/gradp/"), own_discriminator_name)


@pytest.mark.parametrize(
    ("name", "of_g", "of_d"),
    [
        ("s", 29_263_040, 39_114_624),
        ("b", 116_558_144, 104_480_256),
        ("l", 408_486_432, 322_773_728),
        ("xl", 601_956_224, 467_383_872),
    ],
)
def test_parameter_counts_of_the_paper(name, of_g, of_d):
    size = MODEL_SIZES[name]
    sizes = {"img_resolution": (32, 32), "img_channels": 4, "c_dim": 1000, **size._asdict()}
    with torch.device("meta"):
        G, D = networks.build(GATConfig(**sizes)), networks.build(GATDiscriminatorConfig(**sizes, feature_dim=768))
    unused = size.width * (2 * 2 * 4 + 1)  # the published generator embeds a picture of noise, times 0
    assert sum(p.numel() for p in G.parameters()) + unused == of_g
    assert sum(p.numel() for p in D.parameters()) == of_d


def test_position_embedding_on_a_non_square_grid():
    rows, columns, width = 3, 5, 16
    table = position_embedding((rows, columns), width)
    assert table.shape == (1, 15, 16)
    for token in range(rows * columns):
        for channel in range(width):
            position = token % columns if channel < width // 2 else token // columns
            i = channel % (width // 4)
            angle = position * 10000 ** (-i / (width / 4))
            wave = math.cos(angle) if channel // (width // 4) % 2 else math.sin(angle)
            assert table[0, token, channel].item() == pytest.approx(wave, abs=1e-7)


@pytest.mark.parametrize("unturned", [0, 1])
def test_rotary_embedding_on_a_non_square_grid(unturned):
    size, d = (3, 5), 12
    x = torch.randn(2, 2, 15 + unturned, d, dtype=torch.float64)
    y = Rotary(size, d, unturned)(x)
    assert torch.equal(y[:, :, :unturned], x[:, :, :unturned])
    for token in range(15):
        for pair in range(d // 2):
            position = token // 5 if pair < d // 4 else token % 5
            angle = position * 10000 ** (-2 * (pair % (d // 4)) / (d / 2))
            before = torch.view_as_complex(x[:, :, token + unturned, 2 * pair : 2 * pair + 2].contiguous())
            after = torch.view_as_complex(y[:, :, token + unturned, 2 * pair : 2 * pair + 2].contiguous())
            turned = before * complex(math.cos(angle), math.sin(angle))
            assert torch.allclose(after, turned, atol=1e-6)


def test_attention_depends_on_relative_positions_only():
    q, k = torch.randn(1, 1, 1, 8, dtype=torch.float64), torch.randn(1, 1, 1, 8, dtype=torch.float64)
    rotary = Rotary((4, 6), 8)
    scores = (rotary(q.expand(1, 1, 24, 8)) @ rotary(k.expand(1, 1, 24, 8)).transpose(2, 3))[0, 0].view(4, 6, 4, 6)
    assert torch.allclose(scores[0, 0, 1, 2], scores[2, 3, 3, 5], atol=1e-6)
    assert not torch.allclose(scores[0, 0, 1, 2], scores[0, 0, 2, 1], atol=1e-3)


def test_unpatchified_by_hand():
    """One channel, 2x3 patches of 2x2: pixels counted in the order of tokens, then row and column within a patch."""
    image = unpatchified(torch.arange(24.0).view(1, 6, 4), (2, 3), 2)
    assert image[0, 0, 0].tolist() == [0, 1, 4, 5, 8, 9]
    assert image[0, 0, 1].tolist() == [2, 3, 6, 7, 10, 11]
    assert image[0, 0, 2].tolist() == [12, 13, 16, 17, 20, 21]


@pytest.mark.parametrize("c_dim", [0, 3])
@pytest.mark.parametrize("channels", [1, 4])
def test_any_shape_and_labels_or_none(c_dim, channels):
    shape = {"img_resolution": (12, 20), "patch": 4, "img_channels": channels, "c_dim": c_dim}
    G, D = small_g(**shape), small_d(**shape, feature_dim=5, feature_hidden=7)
    c = torch.eye(3)[[0, 2]][:, :c_dim]
    ws = G.mapping(torch.randn(2, 8), c)
    levels = G.levels(ws)
    assert ws.shape == (2, 4, 16)
    assert [tuple(x.shape) for x in levels] == [(2, channels, 12, 20)] * 4
    logits, of_class, of_grid = D.logits_and_features(levels, c)
    assert (logits.shape, of_class.shape, of_grid.shape) == ((2, 1), (2, 5), (2, 15, 5))
    assert torch.equal(D(levels[-1], c), D([levels[-1]] * 4, c))
    assert torch.equal(D([levels[-1]], c), D(levels[-1], c))
    assert G.mapping.w_avg.shape == (max(c_dim, 1), 16)
    if c_dim:
        assert not torch.allclose(G.mapping(torch.ones(2, 8), c)[0], G.mapping(torch.ones(2, 8), c)[1])


def test_every_style_has_its_block():
    """So styles can be mixed: a change of style i changes the levels from its block's on."""
    G = small_g(depth=8)
    ws = G.mapping(torch.randn(1, 8))
    other = G.mapping(torch.randn(1, 8))
    levels = G.levels(ws)
    for i in range(8):
        changed = ws.clone()
        changed[:, i] = other[:, i]
        same = [torch.equal(a, b) for a, b in zip(G.levels(changed), levels)]
        assert same == [level < i // 2 for level in range(4)]


def test_average_styles_of_classes():
    G = small_g(c_dim=3)
    c = torch.eye(3)
    first = torch.randn(3, 16)
    first[1] = math.nan
    G.mapping.update_w_avg(first)
    assert torch.allclose(G.mapping.w_avg[[0, 2]], first[[0, 2]] * 0.005)
    assert G.mapping.w_avg[1].abs().max() == 0
    z = torch.randn(3, 8)
    assert torch.allclose(G.mapping(z, c, truncation_psi=0), G.mapping.w_avg[:, None].expand(3, 4, 16))
    half = G.mapping(z, c, truncation_psi=0.5, truncation_cutoff=1)
    assert torch.allclose(half[:, 0], (G.mapping.w_avg + G.mapping(z, c)[:, 0]) / 2, atol=1e-6)
    assert torch.equal(half[:, 1:], G.mapping(z, c)[:, 1:])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch": 4}, "6x8 can't be cut into patches of 4x4"),
        ({"heads": 8}, "width 16 over 8 heads must give each a multiple of 4 channels"),
        ({"heads": 0}, "must be positive"),
    ],
)
@pytest.mark.parametrize("make", [small_g, small_d])
def test_misfit_sizes(make, changes, message):
    with pytest.raises(UserError, match=message):
        make(**changes)


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="depth must be a multiple of 4"):
        small_g(depth=6)
    with pytest.raises(UserError, match="mapping_layers must be at least 1"):
        small_g(mapping_layers=0)
    D = small_d()
    with pytest.raises(UserError, match="no feature head"):
        D.logits_and_features(torch.randn(1, 3, 6, 8))
    with pytest.raises(UserError, match="wants 4 levels of a picture or one, not 2"):
        D([torch.randn(1, 3, 6, 8)] * 2)


def test_checkpoint_changes_nothing():
    z = torch.randn(2, 8)
    found = []
    for on in (False, True):
        G, D = small_g(checkpoint=on), small_d(checkpoint=on)
        D(G.levels(G.mapping(z))).sum().backward()
        found.append([p.grad for p in [*G.parameters(), *D.parameters()]])
    assert len(found[0]) > 100
    for plain, again in zip(*found):
        assert (plain is None) == (again is None)
        assert plain is None or torch.equal(plain, again)


@pytest.mark.parametrize("suffix", [".pkl", ".safetensors"])
def test_network_files(suffix, tmp_path):
    G, D = small_g(c_dim=2), small_d(c_dim=2, feature_dim=4, feature_hidden=4)
    networks.save(tmp_path / f"x{suffix}", {"G_ema": G, "D": D})
    loaded = networks.load(tmp_path / f"x{suffix}")
    z, c = torch.randn(2, 8), torch.eye(2)
    assert torch.equal(loaded["G_ema"](z, c), G(z, c))
    assert torch.equal(loaded["D"](G(z, c), c), D(G(z, c), c))


def test_half_precision_in_all_blocks():
    G, D, z = small_g(), small_d(feature_dim=4, feature_hidden=8), torch.randn(2, 8)
    exact = G(z)
    features = D.logits_and_features(exact)[2]
    apply_precision(G, D, TrainingConfig(precision="bfloat16", half_resolutions=1))
    seen = []
    for block in [*G.synthesis.blocks, *D.blocks]:
        block.register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    images = G(z)
    logits, _, half = D.logits_and_features(exact)
    assert seen == [torch.bfloat16] * 8
    assert images.dtype == logits.dtype == half.dtype == torch.float32
    assert 0 < golden.rel_err(images, exact) < 0.05
    assert 0 < golden.rel_err(half, features) < 0.05


def test_statistics_of_normalisation_are_float32():
    x = torch.randn(4, 64).bfloat16()
    assert torch.equal(rms_normalize(x), rms_normalize(x.float()).bfloat16())


def test_attention_maps():
    G = small_g()
    ws = G.mapping(torch.randn(1, 8))
    image, maps = attention_maps(G, ws, at=(0.4, 0.6))
    assert torch.allclose(image, G.synthesis(ws))
    assert list(maps) == [f"3x4.{i}" for i in range(4)]
    for found in [*maps.values(), *attention_maps(G, ws)[1].values()]:
        assert found.shape == (2, 3, 4)
        assert torch.allclose(found.sum((1, 2)), torch.ones(2), atol=1e-5)
    # The first block's map by its definition.
    block = G.synthesis.blocks[0]
    s1 = block.modulation(torch.nn.functional.silu(ws[:, 0]))[:, None, :16]
    q, k, _ = block.attn.queries_keys_values(rms_normalize(G.synthesis.pos_embedding) * (1 + s1), G.synthesis.rotary)
    wanted = (q @ k.transpose(2, 3) / 8**0.5).softmax(-1)[0, :, 1 * 4 + 2]
    assert torch.allclose(maps["3x4.0"].flatten(1), wanted, atol=1e-5)
