"""Styleformer-C: sizes, styles, second derivatives, shapes that are not square, training steps."""

import numpy as np
import pytest
import torch
from PIL import Image
from support.small_generators import SMALL, lively
from torch.nn.attention import SDPBackend, sdpa_kernel

from dnnlib import UserError
from torch_utils.ops.upfirdn2d import upsample2d
from training import networks, presets
from training.config import TrainingConfig
from training.dataset import open_dataset
from training.networks.discriminators.stylegan2 import StyleGAN2DiscriminatorConfig
from training.networks.generators.styleformer import StyleformerConfig
from training.networks.generators.styleformer_c import StyleformerCConfig
from training.training_loop import Trainer


def styleformer_c(**changes):
    cfg = {**SMALL, "g_dict": [16, 8], "num_layers": [1, 2], "channel_base": 256, "img_resolution": (64, 64)}
    return lively(networks.build(StyleformerCConfig(**{**cfg, **changes})))


@pytest.mark.parametrize(
    ("name", "side", "parameters"),
    [
        ("clevr", 256, 12_039_645),
        ("cityscapes", 256, 12_039_645),
        ("afhq512", 512, 16_958_946),
        ("demo", 32, 242_365),
    ],
)
def test_presets_build_networks_of_their_size(name, side, parameters):
    cfg = presets.PRESETS[name].build(side, 1).G
    cfg.img_resolution = (side, side)
    with torch.device("meta"):
        G = networks.build(cfg)
    assert sum(p.numel() for p in G.parameters()) == parameters
    assert G.img_size == (side, side)


def test_attention_below_convolution_above_by_default():
    with torch.device("meta"):
        G = networks.build(StyleformerCConfig(img_resolution=(256, 256)))
    assert {name.split("_")[0] for name, m in G.synthesis.attention.named_children()} == {"b8", "b16", "b32"}
    assert G.synthesis.block_names == ["b64", "b128", "b256"]
    assert G.synthesis.b64.conv0.weight.shape == (256, 256, 3, 3)
    assert G.num_ws == 5 + 2 * 3 + 1


def test_every_style_is_read_once_where_it_should_be():
    """Each style changes the image, surplus ones don't, and blocks overlap by one style."""
    G = styleformer_c()
    ws = torch.randn(1, G.num_ws + 2, 16)
    image = G.synthesis(ws, noise_mode="const")
    for i in range(G.num_ws + 2):
        other = ws.clone()
        other[:, i] = torch.randn(16)
        moved = not torch.equal(G.synthesis(other, noise_mode="const"), image)
        assert moved == (i < G.num_ws), i
    x, img = G.synthesis.attention.features_and_image(ws, "const")
    x, img = G.synthesis.b32(x, img, ws[:, 3:6], "const")  # three attention layers, the next style is shared
    torch.testing.assert_close(G.synthesis.b64(x, img, ws[:, 5:8], "const")[1], image)


def test_attention_part_is_styleformer():
    """With the convolutions' image contributions off, the image is Styleformer's, upsampled."""
    G = styleformer_c(img_resolution=(32, 32))
    S = networks.build(StyleformerConfig(**SMALL, g_dict=[16, 8], num_layers=[1, 2], img_resolution=(16, 16)))
    S.synthesis.load_state_dict(G.synthesis.attention.state_dict())
    G.synthesis.b32.torgb.weight.zero_()
    G.synthesis.b32.torgb.bias.zero_()
    ws = torch.randn(2, G.num_ws, 16)
    low, high = S.synthesis(ws, noise_mode="const"), G.synthesis(ws, noise_mode="const")
    torch.testing.assert_close(high, upsample2d(low, G.synthesis.b32.resample_filter))


def test_second_derivative_agrees_with_finite_differences():
    """The gradient of the path length, along a random direction of all weights, in float64."""
    G = styleformer_c(img_resolution=(32, 32)).double().requires_grad_(True)
    ws = torch.randn(2, G.num_ws, 16, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 3, 32, 32, dtype=torch.float64) / 32

    def length() -> torch.Tensor:
        image = G.synthesis(ws, noise_mode="const")
        (gradient,) = torch.autograd.grad((image * y).sum(), ws, create_graph=True)
        return gradient.square().sum(2).mean(1).sqrt().mean()

    parameters = list(G.synthesis.parameters())
    directions = [torch.randn_like(p) for p in parameters]
    with sdpa_kernel(SDPBackend.MATH):
        gradients = torch.autograd.grad(length(), parameters, allow_unused=True)
        exact = sum((g * d).sum() for g, d in zip(gradients, directions) if g is not None).item()
        step, values = 1e-7, []
        for sign in (1, -1):
            with torch.no_grad():
                for p, d in zip(parameters, directions):
                    p.add_(d, alpha=sign * step if sign == 1 else -2 * step)
            values.append(length().item())
    assert exact == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4)
    assert all(g is not None for g, p in zip(gradients, parameters) if p.ndim > 1)


def folder_of_pictures(folder, size, count=8):
    """A data set of noise in a folder."""
    rng = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"img{i:08d}.png")
    return open_dataset(str(folder))


@pytest.mark.parametrize(
    ("G", "size"),
    [
        (
            StyleformerCConfig(
                **SMALL, g_dict=[8, 8, 8], num_layers=[1, 1, 1], channel_base=960, start_resolution=(12, 20)
            ),
            (96, 160),
        ),
        (
            StyleformerConfig(
                **SMALL, g_dict=[8, 8, 8, 8], num_layers=[1, 1, 1, 1], linformer=True, start_resolution=(12, 20)
            ),
            (96, 160),
        ),
        (
            StyleformerCConfig(**SMALL, g_dict=[8, 8], num_layers=[1, 1], channel_base=384, start_resolution=(12, 12)),
            (48, 48),
        ),
        (StyleformerConfig(**SMALL, g_dict=[8, 8, 8], num_layers=[1, 2, 1], start_resolution=(12, 12)), (48, 48)),
    ],
)
def test_a_step_of_training_with_all_phases(tmp_path, G, size):
    """Main steps, path length, R1, augmentation: everything stays finite and every weight of G moves."""
    dataset = folder_of_pictures(tmp_path, size)
    cfg = TrainingConfig(batch=4, metrics=[], G=G)
    cfg.data.path = str(tmp_path)
    cfg.D = StyleGAN2DiscriminatorConfig(channel_base=480, channel_max=8, mbstd_group_size=2)
    cfg.ada.p, cfg.loss.pl_weight, cfg.loss.pl_interval, cfg.loss.r1_interval = 0.5, 2, 1, 1
    for network in (cfg.G, cfg.D):
        network.img_resolution = size
    trainer = Trainer(cfg, dataset, torch.device("cpu"))
    before = {name: p.detach().clone() for name, p in trainer.G.named_parameters()}
    trainer.step()
    for name, p in trainer.G.named_parameters():
        assert torch.isfinite(p).all(), name
        assert not torch.equal(p, before[name]), name
    image = trainer.G_ema(torch.randn(1, 16), torch.zeros(1, 0), noise_mode="const")
    assert image.shape == (1, 3, *size)


def test_noise_modes_and_a_round_trip_through_a_file(tmp_path):
    G = styleformer_c(img_resolution=(32, 32), c_dim=3)
    networks.save(tmp_path / "c.pkl", {"G_ema": G})
    again = networks.load(tmp_path / "c.pkl")["G_ema"]
    z, c = torch.randn(2, 16), torch.eye(3)[:2]
    for mode in ("const", "none"):
        assert torch.equal(G(z, c, noise_mode=mode), again(z, c, noise_mode=mode))
    assert not torch.equal(G(z, c, noise_mode="random"), G(z, c, noise_mode="random"))
    assert not torch.equal(G(z, c, noise_mode="none"), G(z, c.flip(1), noise_mode="none"))


@pytest.mark.parametrize("size", [(16, 16), (48, 48), (64, 128), (8, 8)])
def test_sizes_it_cannot_reach_are_refused(size):
    with pytest.raises(UserError, match="never gives"):
        styleformer_c(img_resolution=size)


def test_lists_that_do_not_match_are_refused():
    with pytest.raises(UserError, match="num_layers wants 2"):
        styleformer_c(num_layers=[1, 1, 1])
