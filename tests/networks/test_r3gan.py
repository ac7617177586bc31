"""R3GAN's networks: the original's numbers, gradients and sizes; what the rest of the project expects of a network."""

import pytest
import torch
import torch.nn.functional as F
from support import golden, official_files, tiny_runs

from dnnlib.errors import UserError
from training import networks
from training.config import TrainingConfig
from training.networks.discriminators.r3gan import R3GANDiscriminatorConfig
from training.networks.generators.r3gan import R3GANConfig
from training.networks.official.r3gan import own_discriminator_name, own_generator_name
from training.run.checkpoint import start_from
from training.step.precision import apply_precision

SMALL = {"widths": [16, 16, 8], "blocks": [1, 2, 1], "groups": [4, 4, 2], "img_resolution": (16, 16)}


def test_golden_pictures_logits_and_gradients(tmp_path):
    data = golden.load("r3gan")
    loaded = networks.load(official_files.unpack("official_r3gan_0.pkl", tmp_path))  # the golden tensors' networks
    G, D = loaded["G"], loaded["D"]
    fake, real = G(data["in/z"]), data["in/real"]
    assert golden.rel_err(fake, data["out/img"]) <= 1e-5
    assert golden.rel_err(D(fake)[:, 0], data["out/logits_fake"]) <= 1e-5
    assert golden.rel_err(D(real)[:, 0], data["out/logits_real"]) <= 1e-5

    # The discriminator's step, with both penalties, which differentiate it twice.
    D.requires_grad_(True)
    total = torch.zeros([])
    logits = {}
    for name, images in (("r1", real), ("r2", fake.detach())):
        images = images.clone().requires_grad_(True)
        logits[name] = D(images)[:, 0]
        (gradient,) = torch.autograd.grad(logits[name].sum(), images, create_graph=True)
        penalty = gradient.square().sum([1, 2, 3])
        assert golden.rel_err(penalty, data[f"D/{name}"]) <= 1e-5
        total = total + 0.35 * penalty.mean()
    (total + F.softplus(logits["r2"] - logits["r1"]).mean()).backward()
    check_gradients(D, golden.state(data, "gradp/D/Model."), lambda name: own_discriminator_name(name, 3, 2))

    D.requires_grad_(False)
    G.requires_grad_(True)
    F.softplus(D(real) - D(G(data["in/z"]))).mean().backward()
    check_gradients(G, golden.state(data, "gradp/G/Model."), own_generator_name)


def check_gradients(module, expected, rename) -> None:
    """Large gradients keep every eighth row only."""
    parameters = dict(module.named_parameters())
    assert len(expected) == len(parameters)
    for name, value in expected.items():
        gradient = parameters[rename(name)].grad
        kept = gradient if len(gradient) == len(value) else gradient[::8]
        assert golden.rel_err(kept, value) <= 2e-5, name


@pytest.mark.parametrize(
    ("side", "upper", "c_dim", "of_g", "of_d"),
    [
        (32, [], 0, 20_732_160, 20_683_776),
        (32, [], 10, 20_781_952, 21_280_512),
        (64, [384], 0, 22_429_824, 22_381_440),
        (256, [384, 192, 96], 0, 23_057_952, 23_009_568),
    ],
)
def test_parameter_counts_of_the_paper(side, upper, c_dim, of_g, of_d):
    widths = [768] * 4 + upper
    sizes = {"widths": widths, "groups": [w // 8 for w in widths], "blocks": [2] * len(widths)}
    for cfg, count in ((R3GANConfig(**sizes), of_g), (R3GANDiscriminatorConfig(**sizes), of_d)):
        cfg.img_resolution, cfg.c_dim = (side, side), c_dim
        with torch.device("meta"):
            assert sum(p.numel() for p in networks.build(cfg).parameters()) == count


@pytest.mark.parametrize("c_dim", [0, 3])
def test_start_sizes_and_shapes_other_than_the_papers(c_dim):
    sizes = SMALL | {"img_resolution": (24, 40), "img_channels": 1, "c_dim": c_dim, "kernel_size": 5, "expansion": 3}
    G, D = networks.build(R3GANConfig(**sizes, z_dim=8)), networks.build(R3GANDiscriminatorConfig(**sizes))
    assert G.synthesis.basis.basis.shape[1:] == (6, 10)
    z, c = torch.randn(4, 8), torch.eye(3)[[0, 1, 2, 0]][:, :c_dim]
    images = G(z, c)
    assert images.shape == (4, 1, 24, 40)
    assert D(images, c).shape == (4, 1)
    assert torch.equal(G.mapping(z, c)[:, 0, :8], z)
    assert G.mapping(z, c).shape == (4, 1, G.w_dim)
    if c_dim:
        assert not torch.allclose(G(z, c), G(z, c.roll(1, 0)))


def test_initial_scale():
    """The signal keeps its variance: that is what the weights' scale is for."""
    torch.manual_seed(0)
    sizes = {"widths": [64] * 3, "blocks": [2] * 3, "groups": [8] * 3, "img_resolution": (16, 16), "c_dim": 5}
    G, D = networks.build(R3GANConfig(**sizes)), networks.build(R3GANDiscriminatorConfig(**sizes))
    block = G.synthesis.stages[1].blocks[0]
    assert block.conv3.weight.abs().max() == 0
    gain = (2 / 1.04) ** 0.5 * 6**-0.25
    assert block.conv1.weight.std().item() == pytest.approx(gain / 64**0.5, rel=0.05)
    assert block.conv2.weight.std().item() == pytest.approx(gain / (16 * 9) ** 0.5, rel=0.05)
    assert G.synthesis.basis.basis.std().item() == pytest.approx(1, rel=0.1)
    assert D.embed.weight.std().item() == pytest.approx(64**-0.5 / 5**0.5, rel=0.2)
    assert G.synthesis.basis(torch.randn(256, G.w_dim)).std().item() == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"img_resolution": (30, 32)}, "3 stages want sides that are multiples of 4, not 30x32"),
        ({"blocks": [1, 1]}, "blocks wants 3 positive values"),
        ({"widths": []}, "widths wants some positive values"),
        ({"groups": [5, 4, 2]}, "32 channels can't be split into 5 groups"),
        ({"kernel_size": 4}, "kernel_size odd"),
    ],
)
@pytest.mark.parametrize("config", [R3GANConfig, R3GANDiscriminatorConfig])
def test_misfit_sizes(config, changes, message):
    with pytest.raises(UserError, match=message):
        networks.build(config(**SMALL | changes))


def test_what_it_has_not_is_refused():
    G = networks.build(R3GANConfig(**SMALL))
    with pytest.raises(UserError, match="no average style"):
        G(torch.randn(1, 64), truncation_psi=0.7)
    with pytest.raises(UserError, match="neither mapping network nor styles"):
        networks.build(R3GANConfig(**SMALL, w_dim=512))


@pytest.mark.parametrize("suffix", [".pkl", ".safetensors"])
def test_network_files(suffix, tmp_path):
    G = networks.build(R3GANConfig(**SMALL, c_dim=2))
    D = networks.build(R3GANDiscriminatorConfig(**SMALL, c_dim=2))
    networks.save(tmp_path / f"x{suffix}", {"G_ema": G, "D": D})
    loaded = networks.load(tmp_path / f"x{suffix}")
    z, c = torch.randn(2, 64), torch.eye(2)
    assert torch.equal(loaded["G_ema"](z, c), G(z, c))
    assert torch.equal(loaded["D"](G(z, c), c), D(G(z, c), c))


def test_half_precision_above_the_lowest_resolution():
    cfg = TrainingConfig(precision="bfloat16", half_resolutions=2)
    G, D = networks.build(R3GANConfig(**SMALL)), networks.build(R3GANDiscriminatorConfig(**SMALL))
    for module in (G, D):
        for name, p in module.named_parameters():
            if "conv3" in name:
                torch.nn.init.normal_(p, std=0.1)
    z = torch.randn(4, 64)
    exact = G(z)
    exact_logits = D(exact)
    apply_precision(G, D, cfg)
    seen = []
    for network in (G.synthesis, D):
        for stage in network.stages:
            stage.register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    images = G(z)
    logits = D(exact)
    half, full = torch.bfloat16, torch.float32
    assert seen == [full, half, half, half, half, full]
    assert images.dtype == logits.dtype == full
    assert 0 < golden.rel_err(images, exact) < 0.03
    assert 0 < golden.rel_err(logits, exact_logits) < 0.05


def test_trains_with_every_phase_and_transfers(tmp_path):
    """Style mixing, path length, w_avg and R1 meet a generator without a mapping network."""
    cfg = tiny_runs.recipe("ada")
    sizes = {"widths": [8, 8, 4, 4], "blocks": [1] * 4, "groups": [2] * 4, "img_resolution": (32, 32)}
    cfg.G, cfg.D = R3GANConfig(**sizes, z_dim=8), R3GANDiscriminatorConfig(**sizes)
    trainer = tiny_runs.trainer(cfg)
    before = {name: p.detach().clone() for name, p in trainer.G.named_parameters()}
    trainer.step()
    trainer.step()
    assert trainer.bad_gradients == 0
    assert all(not torch.equal(p, before[name]) for name, p in trainer.G.named_parameters() if "blocks" not in name)

    networks.save(tmp_path / "x.pkl", {"G": trainer.G, "D": trainer.D, "G_ema": trainer.G_ema})
    fresh = {"G": networks.build(cfg.G), "D": networks.build(cfg.D), "G_ema": networks.build(cfg.G)}
    count = sum(len(module.state_dict()) for module in fresh.values())
    with torch.no_grad():
        assert f"{count} of {count} tensors copied" in start_from(str(tmp_path / "x.pkl"), fresh)
    assert torch.equal(fresh["D"].from_rgb.weight, trainer.D.from_rgb.weight)
