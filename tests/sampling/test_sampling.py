"""From seeds to images: the field's rules, and independence from the batch."""

import numpy as np
import pytest
import torch
from support.small_generators import small_generator

from dnnlib import UserError
from training.sampling.seeds import (
    class_label,
    image_of_seed,
    images_of_styles,
    latent,
    latents,
    load_projected_w,
    parse_seeds,
    styles_of_seeds,
)

SEEDS = [0, 7, 2**32 - 1, 100, 3, 4, 5]


@pytest.mark.parametrize(
    ("text", "seeds"), [("5", [5]), ("1,4,10-12", [1, 4, 10, 11, 12]), (" 0 , 2 - 3", [0, 2, 3]), ("3,3", [3, 3])]
)
def test_seed_lists(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1,,2", "5-3", "-1", "1.5", "4294967296"])
def test_bad_seed_lists_name_their_option(text):
    with pytest.raises(UserError, match="--rows"):
        parse_seeds(text, "--rows")


def test_latents_follow_the_rule_of_the_networks_family():
    G = small_generator()
    for seed, z in zip(SEEDS, latents(G, SEEDS)):
        assert np.array_equal(z.numpy(), np.random.RandomState(seed).randn(1, 16)[0].astype(np.float32))
    G.cfg.seed_rule = "torch"
    torch.manual_seed(5)
    assert torch.equal(latent(G, 5), torch.randn(1, 16))


@pytest.mark.parametrize("noise_mode", ["const", "none", "random"])
def test_an_image_does_not_depend_on_its_batch(noise_mode):
    G = small_generator()
    c = torch.zeros(1, 0)
    alone = torch.stack([image_of_seed(G, seed, c, 0.8, noise_mode) for seed in SEEDS])
    ws = styles_of_seeds(G, SEEDS, c, 0.8)
    for batch in (1, 3, 7):
        together = images_of_styles(G, ws, noise_mode, SEEDS, batch)
        difference = (together.int() - alone.int()).abs()
        assert difference.max() <= 1
        assert (difference > 0).float().mean() < 0.001
    assert len(alone.flatten(1).unique(dim=0)) == len(SEEDS)


def test_random_noise_is_keyed_by_the_seed_and_leaves_the_callers_random_numbers_alone():
    G = small_generator()
    c = torch.zeros(1, 0)
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    a, b = (image_of_seed(G, 9, c, noise_mode="random") for _ in range(2))
    assert torch.equal(torch.randn(4), expected)
    assert torch.equal(a, b)
    ws = styles_of_seeds(G, [9], c)
    assert not torch.equal(images_of_styles(G, ws, "random", [10])[0], a)


def test_float64_agrees_within_the_stated_tolerance():
    """The bound that holds between devices too: a grey level in rare pixels."""
    G, H = small_generator(), small_generator().double()
    ws = styles_of_seeds(G, range(16), torch.zeros(1, 0))
    difference = (images_of_styles(G, ws).int() - images_of_styles(H, ws.double()).int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.001


def test_truncation_zero_is_the_average_and_one_is_none():
    G = small_generator()
    c = torch.zeros(1, 0)
    assert torch.allclose(styles_of_seeds(G, [1, 2], c, 0.0), G.mapping.w_avg.expand(2, G.num_ws, -1))
    half = styles_of_seeds(G, [1], c, 0.5)
    torch.testing.assert_close(half, (styles_of_seeds(G, [1], c) + G.mapping.w_avg) / 2)


def test_labels():
    G = small_generator(c_dim=3)
    assert class_label(G, 2).tolist() == [[0, 0, 1]]
    for wrong in (None, 3, -1):
        with pytest.raises(UserError, match="class"):
            class_label(G, wrong)
    with pytest.raises(UserError, match="unconditional"):
        class_label(small_generator(), 0)
    labels = torch.eye(3)[[2, 0]]
    both = styles_of_seeds(G, [4, 4], labels)
    torch.testing.assert_close(both[1:], styles_of_seeds(G, [4], labels[1:]))
    assert not torch.equal(both[0], both[1])


def test_projected_styles(tmp_path):
    G = small_generator()
    w = np.random.default_rng(0).standard_normal((2, G.num_ws + 3, 16)).astype(np.float32)
    np.savez(tmp_path / "w.npz", w=w)
    ws = load_projected_w(G, str(tmp_path / "w.npz"))
    assert torch.equal(images_of_styles(G, ws), images_of_styles(G, ws[:, : G.num_ws]))
    np.savez(tmp_path / "short.npz", w=w[:, :2])
    np.savez(tmp_path / "other.npz", v=w)
    np.savez(tmp_path / "nan.npz", w=w * np.nan)
    (tmp_path / "text.npz").write_text("no")
    for name in ("short", "other", "nan", "text", "absent"):
        with pytest.raises(UserError, match="--projected-w"):
            load_projected_w(G, str(tmp_path / f"{name}.npz"))
