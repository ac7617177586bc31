"""StyleNAT's networks against tensors that the original programs computed (tests/data/golden)."""

import pytest
import torch
from support import official_files
from support.golden import load, rel_err, state

from training import networks
from training.networks.discriminators.wavelet import WaveletDiscriminatorConfig, stored_official_name
from training.networks.generators.stylenat import StyleNATConfig, official_to_own
from training.networks.generators.stylenat_attention import HeadGroup, HydraAttention

FORWARD, GRADIENT = 1e-5, 2e-5


def load_official(module: torch.nn.Module, tensors: dict[str, torch.Tensor], rename) -> None:
    named = {rename(k): v for k, v in tensors.items() if rename(k) is not None}
    missing, unexpected = module.load_state_dict(named, strict=False)
    assert not unexpected
    assert missing in ([], ["mapping.w_avg"])


def check_parameter_gradients(module: torch.nn.Module, expected: dict[str, torch.Tensor], rename) -> None:
    parameters = dict(module.named_parameters())
    assert len(expected) > 3
    for name, value in expected.items():
        if rename(name) is not None:
            assert rel_err(parameters[rename(name)].grad, value) <= GRADIENT, name


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("stylenat_hydra_na_clean", [HeadGroup(2, (3, 3), 1), HeadGroup(2, (5, 5), 3)]),
        ("stylenat_hydra_na_k7_d2", [HeadGroup(1, (7, 7), 1), HeadGroup(1, (7, 7), 2)]),
        ("stylenat_mhsarpb4", [HeadGroup(4, (4, 4))]),
    ],
)
def test_attention(name, groups):
    g = load(name)

    def rename(k):
        return None if k == "relative_position_index" else "rpb.0" if k == "rpb" else k

    attention = HydraAttention(g["in/x"].shape[3], groups)
    load_official(attention, state(g), rename)
    x = g["in/x"].requires_grad_()
    y = attention(x)
    (y * g["extra/R"]).sum().backward()
    assert rel_err(y, g["out/y"]) <= FORWARD
    assert rel_err(x.grad, g["grad/x"]) <= GRADIENT
    check_parameter_gradients(attention, state(g, "extra/gradp/"), rename)


def test_generator():
    g = load("stylenat_generator32")
    G = networks.build(
        StyleNATConfig(
            z_dim=32,
            w_dim=32,
            mapping_layers=2,
            channels=[32, 32, 16, 16],
            kernels=[[3], [3], [3], [5]],
            dilations=[[1], [1, 2], [1, 4], [1, 2]],
            output_norm="none",
        )
    )
    load_official(G, state(g), official_to_own)
    z = g["in/z"].requires_grad_()
    ws = G.mapping(z)
    assert rel_err(ws, g["extra/latent"]) <= FORWARD
    y = G.synthesis(ws)
    (y * g["extra/R"]).sum().backward()
    assert rel_err(y, g["out/y"]) <= FORWARD
    assert rel_err(z.grad, g["grad/z"]) <= GRADIENT
    check_parameter_gradients(G, state(g, "extra/gradp/"), official_to_own)


@pytest.mark.parametrize("spectral", [False, True])
def test_discriminator(spectral):
    g = load("styleswin_discriminator32_" + ("sn" if spectral else "nosn"))
    cfg = WaveletDiscriminatorConfig(channels=[8, 16, 16], spectral_norm=spectral, input_norm="none")
    D = networks.build(cfg).eval()
    load_official(D, state(g), stored_official_name)
    img = g["in/img"].requires_grad_()
    y = D(img)
    (y * g["extra/R"]).sum().backward()
    assert rel_err(y, g["out/y"]) <= FORWARD
    assert rel_err(img.grad, g["grad/img"]) <= GRADIENT
    check_parameter_gradients(D, state(g, "extra/gradp/"), stored_official_name)


def test_official_discriminator_judges_the_shown_images(tmp_path):
    """An official file's D, asked with images in [-1, 1], says what the original says of normalised ones."""
    name = "official_stylenat_new.pt"
    loaded, expected = networks.load(official_files.unpack(name, tmp_path)), official_files.expected(name)
    img = loaded["G_ema"](expected["z"])
    assert rel_err(img, expected["img"]) <= FORWARD
    assert rel_err(loaded["D"](expected["img"]), expected["logits_of_img_imagenet_normalised"]) <= FORWARD
