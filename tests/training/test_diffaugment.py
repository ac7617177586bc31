"""DiffAugment against the original's pictures, its frequencies and ranges; draws that several batches share."""

import dataclasses

import pytest
import torch
from support import golden

from dnnlib.errors import UserError
from training.augment.diffaugment import DiffAugment, DiffAugmentConfig, DiffAugmentDraw, blank, shift
from training.augment.pipe import PRESETS, AugmentPipe

OFF = DiffAugmentConfig(color=0, translation=0, cutout=0, flip=0)


def test_golden():
    data = golden.load("diffaug")
    x = data["in/x"]

    def drawn(name):
        return data[f"param/{name}"].flatten()

    colors = (drawn("color0"), drawn("color1"), drawn("color3"), drawn("color5"))
    corners = (drawn("cutout1") - 4, drawn("cutout2") - 4, (8, 8))
    moves = (drawn("translation0"), drawn("translation1"))
    for name, draw in (
        ("color", DiffAugmentDraw(colors, None, None, None)),
        ("translation", DiffAugmentDraw(None, moves, None, None)),
        ("cutout", DiffAugmentDraw(None, None, corners, None)),
        ("flip", DiffAugmentDraw(None, None, None, drawn("flip0") < 0.4)),
    ):
        assert not torch.equal(draw.apply(x), x)
        assert golden.rel_err(draw.apply(x), data[f"out/{name}"]) <= 1e-6


def test_shift_and_blank_by_hand_on_non_square_images():
    x = torch.arange(1.0, 13).view(1, 1, 3, 4)
    moved = shift(x, torch.tensor([1]), torch.tensor([-2]))
    assert moved[0, 0].tolist() == [[0, 0, 5, 6], [0, 0, 9, 10], [0, 0, 0, 0]]
    cut = blank(x, torch.tensor([-1]), torch.tensor([2]), (2, 4))
    assert cut[0, 0].tolist() == [[1, 2, 0, 0], [5, 6, 7, 8], [9, 10, 11, 12]]


def test_frequencies_and_ranges():
    torch.manual_seed(0)
    draw = DiffAugment(DiffAugmentConfig()).draw(torch.empty(20000, 1, 24, 40))
    assert draw.color[0].double().mean() == pytest.approx(0.5, abs=0.015)
    assert draw.flip.double().mean() == pytest.approx(0.4, abs=0.015)
    assert set(draw.shift[0].tolist()) == set(range(-3, 4))
    assert set(draw.shift[1].tolist()) == set(range(-5, 6))
    top, left, size = draw.hole
    assert size == (12, 20)
    assert set(top.tolist()) == set(range(-6, 19))
    assert set(left.tolist()) == set(range(-10, 31))


@pytest.mark.parametrize("name", ["color", "translation", "cutout", "flip"])
def test_strength_0_leaves_a_transform_out(name):
    x = torch.randn(64, 4, 16, 16)
    only = DiffAugment(dataclasses.replace(OFF, **{name: getattr(DiffAugmentConfig(), name)}))
    assert not torch.equal(only(x), x)
    assert torch.equal(DiffAugment(OFF)(x), x)


def test_impossible_strengths_are_refused():
    with pytest.raises(UserError, match="cutout is a share from 0 to 1, not 1.5"):
        DiffAugment(DiffAugmentConfig(cutout=1.5))


@pytest.mark.parametrize("augment", [DiffAugment(DiffAugmentConfig()), AugmentPipe(PRESETS["bgcfnc"])])
def test_a_draw_is_shared_and_draws_nothing_when_applied(augment):
    torch.manual_seed(0)
    x = torch.randn(6, 3, 48, 40)
    torch.manual_seed(1)
    at_once = augment(x)
    after = torch.rand(3)
    torch.manual_seed(1)
    draw = augment.draw(x)
    state = torch.get_rng_state()
    assert torch.equal(draw.apply(x), at_once)
    other = draw.apply(x + 1)
    assert torch.equal(draw.apply(x), at_once)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(torch.rand(3), after)
    assert not torch.equal(other, at_once)


def test_differentiable_twice():
    augment = DiffAugment(DiffAugmentConfig())
    x = torch.randn(3, 2, 8, 12, dtype=torch.float64, requires_grad=True)
    draw = augment.draw(x)
    assert torch.autograd.gradgradcheck(lambda t: draw.apply(t).sin(), x, fast_mode=True)
