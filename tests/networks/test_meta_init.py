"""Building modules for the tensors of a file: nothing is initialised, nothing is lost."""

import pytest
import torch
from torch import nn

from torch_utils.meta_init import build_with
from training import networks
from training.networks.discriminators.stylegan2 import StyleGAN2DiscriminatorConfig
from training.networks.discriminators.wavelet import WaveletDiscriminatorConfig
from training.networks.generators.styleformer import StyleformerConfig
from training.networks.generators.stylegan2 import StyleGAN2Config
from training.networks.generators.stylenat import StyleNATConfig

LATENTS = {"z_dim": 16, "w_dim": 16, "mapping_layers": 1}
CONFIGS = [
    StyleformerConfig(**LATENTS, g_dict=[16, 16, 8], num_layers=[1, 1, 1], depth=8, linformer=True),
    StyleGAN2Config(**LATENTS, channel_base=256, channel_max=16),
    StyleNATConfig(**LATENTS, channels=[16, 16, 16, 16], min_heads=2),
    StyleNATConfig(**LATENTS, channels=[16, 16, 16, 16], min_heads=2, block_type="swin"),
    StyleGAN2DiscriminatorConfig(channel_base=256, channel_max=16, c_dim=2, mapping_layers=1),
    WaveletDiscriminatorConfig(channels=[16, 16, 16]),
    WaveletDiscriminatorConfig(channels=[16, 16, 16], spectral_norm=False),
]


@pytest.mark.parametrize("cfg", CONFIGS, ids=lambda cfg: cfg.kind)
def test_every_network_is_built_without_initialising(cfg):
    original = networks.build(cfg)
    copy = build_with(lambda: networks.build(cfg), original.state_dict())
    assert copy is not None
    for kind in ("parameters", "buffers"):
        first, second = (dict(getattr(m, f"named_{kind}")()) for m in (original, copy))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert all(first[name].requires_grad == second[name].requires_grad for name in first)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(3))
        self.b = self.a


class Computing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(3))
        self.largest = float(self.a.detach().max())


class Keeping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("noise", torch.randn(3), persistent=False)


@pytest.mark.parametrize("module_class", [Tied, Computing, Keeping])
def test_modules_that_need_their_initial_values_are_left_to_the_plain_way(module_class):
    assert build_with(module_class, module_class().state_dict()) is None


def test_misfits_are_left_to_the_plain_way():
    assert build_with(lambda: nn.Linear(2, 3), nn.Linear(2, 2).state_dict()) is None
    assert build_with(lambda: nn.Linear(2, 3), {}) is None
    assert build_with(lambda: nn.Linear(2, 3), nn.Linear(2, 3).double().state_dict()) is None
