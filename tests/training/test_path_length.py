"""Path length: the mean over styles is the original's, whose Styleformer has more styles than its layers read."""

import pytest
import torch

from torch_utils.training_stats import BatchMean, Collector
from training import networks
from training.augment.draw import NoAugmentation
from training.networks.discriminators.stylegan2 import StyleGAN2DiscriminatorConfig
from training.networks.generators.styleformer import StyleformerConfig
from training.networks.generators.styleformer_c import StyleformerCConfig
from training.networks.generators.stylegan2 import StyleGAN2Config
from training.objectives.base import MicroBatch
from training.objectives.logistic import Logistic, LogisticConfig

LATENTS = {"z_dim": 8, "w_dim": 8, "mapping_layers": 1}


def styleformer(**changes):
    sizes = {"g_dict": [8, 8, 8], "num_layers": [1, 2, 2], "depth": 8}
    return networks.build(StyleformerConfig(**LATENTS, **(sizes | changes)))


def test_number_of_styles():
    assert styleformer().path_length_styles == 5 + 3
    assert styleformer(num_layers=[1, 3, 3]).path_length_styles == 7 + 3
    stylegan2 = networks.build(StyleGAN2Config(**LATENTS, channel_base=64, channel_max=8))
    assert stylegan2.path_length_styles == stylegan2.num_ws
    # There is no original of Styleformer-C to agree with.
    c = networks.build(StyleformerCConfig(**LATENTS, g_dict=[8], num_layers=[1], channel_base=64, channel_max=8))
    assert c.path_length_styles == c.num_ws


@pytest.mark.parametrize("style_mixing", [0, 0.9])
def test_lengths_are_those_of_styles_with_unread_rows(style_mixing):
    torch.manual_seed(0)
    G = styleformer()
    means = BatchMean()
    cfg = LogisticConfig(pl_weight=3.0, pl_batch_shrink=1, style_mixing=style_mixing)
    D = networks.build(StyleGAN2DiscriminatorConfig(channel_base=64, channel_max=8))
    loss = Logistic(cfg, G, D, NoAugmentation(), Collector(), means)
    loss.pl_mean.fill_(0.25)
    torch.manual_seed(5)
    got = loss.g_path_length(MicroBatch(torch.zeros(4, 0)))

    torch.manual_seed(5)
    ws = G.mixed_styles(torch.randn(4, 8), torch.zeros(4, 0), style_mixing)
    padded = torch.cat([ws, ws[:, -1:].expand(-1, 8 - G.num_ws, -1)], dim=1).detach().requires_grad_()
    images = G.synthesis(padded, noise_mode="random")
    y = torch.randn_like(images) / 32
    (gradient,) = torch.autograd.grad((images * y).sum(), padded)
    assert not gradient[:, G.num_ws :].any()
    lengths = gradient.square().sum(2).mean(1).sqrt()
    assert torch.allclose(got, 3 * (lengths - 0.25).square().mean(), rtol=1e-4)
    assert torch.allclose(means.take("pl_length").squeeze(), lengths.mean(), rtol=1e-4)


def test_mixing_switches_where_the_originals_does():
    """Uniformly after 1 to layers + resolutions - 1 styles; the surplus ones change nothing that is read."""
    torch.manual_seed(0)
    G = styleformer()
    n = 4000
    z = torch.randn(n, 8)
    kept = (G.mixed_styles(z, None, 1.0) == G.mapping(z, None)).all(2).sum(1)
    shares = torch.bincount(kept, minlength=7)[1:] / n
    want = torch.tensor([1 / 7] * 5 + [2 / 7])
    assert (shares - want).abs().max() < 0.03
