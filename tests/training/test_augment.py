"""The augmentation pipeline: golden images and gradients, second derivatives, frequencies of what is drawn."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from support import golden

from dnnlib.errors import UserError
from training.augment import geometry
from training.augment.pipe import (
    PRESETS,
    AugmentConfig,
    AugmentPipe,
    RandomDraws,
    draw_box,
    draw_colors,
    draw_gains,
    draw_maps,
    draw_sigma,
    filter_bands,
    filter_bank,
    recolor,
)

GOLDEN_SETS = PRESETS | {"bgcfc": dataclasses.replace(PRESETS["bgcf"], cutout=1)}


def pipe(cfg: AugmentConfig, p: float = 1.0) -> AugmentPipe:
    result = AugmentPipe(cfg)
    result.p.fill_(p)
    return result


def pictures(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(3)) * 2 - 1


@pytest.mark.parametrize("name", ["blit", "geom", "color", "bgc", "filter", "bgcfc"])
@pytest.mark.parametrize("q", [0.1, 0.35, 0.8])
def test_golden(name, q):
    data = golden.load("augment_pipe")
    images = data["img"].requires_grad_()
    y = AugmentPipe(GOLDEN_SETS[name])(images, percentile=q)
    (gx,) = torch.autograd.grad((y * data["R"]).sum(), images)
    assert golden.rel_err(y, data[f"{name}/{q}/y"]) <= 1e-5
    assert golden.rel_err(gx, data[f"{name}/{q}/gx"]) <= 2e-5


@pytest.mark.parametrize("name", ["bg", "color", "bgcfnc"])
def test_second_derivatives(name):
    module = pipe(PRESETS[name]).double()
    images = pictures(2, 3, 24, 23, dtype=torch.float64).requires_grad_()

    def augmented(x):
        torch.manual_seed(5)
        return module(x).sin()  # a non-linear reader, as R1 has one

    assert torch.autograd.gradgradcheck(augmented, images, fast_mode=True)


@pytest.mark.parametrize(
    ("cfg", "changed"),
    [
        (AugmentConfig(xflip=1), 0.3 / 2),
        (AugmentConfig(rotate90=1), 0.3 * 3 / 4),
        (AugmentConfig(xint=1), 0.3 * (1 - 1 / 8 / 8)),  # +-4 of 32 pixels, rounded: 0 has a share of 1/8
        (AugmentConfig(scale=1), 0.3),
        (AugmentConfig(rotate=1), 0.3),
        (AugmentConfig(aniso=1), 0.3),
        (AugmentConfig(xfrac=1), 0.3),
        (AugmentConfig(scale=0.5), 0.15),
        (AugmentConfig(rotate=0.5), 0.15),
        (AugmentConfig(scale=1, aniso=1), 1 - 0.7**2),
    ],
)
def test_frequency_of_maps(cfg, changed):
    torch.manual_seed(0)
    images = torch.zeros(20000, 1, 32, 32)
    maps = draw_maps(cfg, RandomDraws(images, torch.tensor(0.3)), 32, 32)
    share = (maps != torch.eye(3)).flatten(1).any(dim=1).double().mean()
    assert abs(float(share) - changed) < 0.013  # four standard deviations


@pytest.mark.parametrize(
    ("cfg", "changed"),
    [
        (AugmentConfig(brightness=1), 0.3),
        (AugmentConfig(contrast=1), 0.3),
        (AugmentConfig(lumaflip=1), 0.15),
        (AugmentConfig(hue=1), 0.3),
        (AugmentConfig(saturation=0.5), 0.15),
        (PRESETS["color"], 1 - 0.7**4 * 0.85),
    ],
)
def test_frequency_of_colors(cfg, changed):
    torch.manual_seed(0)
    colors = draw_colors(cfg, RandomDraws(torch.zeros(20000, 3, 1, 1), torch.tensor(0.3)))
    share = ((colors - torch.eye(4)).abs() > 1e-6).flatten(1).any(dim=1).double().mean()
    assert abs(float(share) - changed) < 0.013


def test_strengths():
    torch.manual_seed(0)
    draws = RandomDraws(torch.zeros(20000, 1, 1, 1, dtype=torch.float64), torch.tensor(1.0))
    scale = draw_maps(AugmentConfig(scale=1), draws, 32, 32)[:, 0, 0]
    assert float(scale.log2().std()) == pytest.approx(0.2, rel=0.03)
    stretch = draw_maps(AugmentConfig(aniso=1), draws, 32, 32)
    assert torch.allclose(stretch[:, 0, 0] * stretch[:, 1, 1], torch.ones(20000, dtype=torch.float64))
    shift = draw_maps(AugmentConfig(xfrac=1), draws, 16, 48)
    assert float(shift[:, 0, 2].std()) == pytest.approx(48 / 8, rel=0.03)  # x moves along the width
    assert float(shift[:, 1, 2].std()) == pytest.approx(16 / 8, rel=0.03)
    whole = draw_maps(AugmentConfig(xint=1), draws, 16, 48)
    assert whole[:, 0, 2].abs().max() == 6
    assert whole[:, 1, 2].abs().max() == 2
    sigma = draw_sigma(AugmentConfig(noise=1), draws)
    assert float(sigma.square().mean().sqrt()) == pytest.approx(0.1, rel=0.03)
    box = draw_box(AugmentConfig(cutout=1), draws)
    assert float(box[:, 0].mean()) == pytest.approx(0.5, abs=0.02)
    assert (box[:, 2] == 0.5).all()
    gains = draw_gains(AugmentConfig(imgfilter=1, imgfilter_bands=[0, 0, 1, 0]), draws)
    power = torch.tensor([10, 1, 1, 1], dtype=torch.float64) / 13
    assert torch.allclose((gains.square() * power).sum(dim=1), torch.ones(20000, dtype=torch.float64))
    assert float((gains[:, 2] / gains[:, 0]).log2().std()) == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize("name", list(PRESETS))
def test_p_decides_what_happens_not_what_is_drawn(name):
    images = pictures(4, 3, 32, 32)
    after = []
    for p in (0.0, 0.5, 1.0):
        torch.manual_seed(1)
        y = pipe(PRESETS[name], p)(images)
        after.append(torch.rand(3))
        assert torch.equal(y, images) == (p == 0) or (y - images).abs().max() < 1e-6
    assert torch.equal(after[0], after[1])
    assert torch.equal(after[0], after[2])


def test_whole_pixel_shift_moves_pixels_exactly():
    images = pictures(1, 3, 32, 20)
    shift = torch.eye(3)
    shift[0, 2], shift[1, 2] = -2, 3  # content moves right by 2 and up by 3
    y = geometry.warp(images, shift[None])
    assert golden.rel_err(y[:, :, :-3, 2:], images[:, :, 3:, :-2]) < 1e-5
    assert golden.rel_err(y[:, :, :-3, :2], images[:, :, 3:, [2, 1]]) < 1e-5  # the border is a mirror


def test_unmoved_image_survives_the_filters():
    images = pictures(2, 3, 17, 32, dtype=torch.float64)
    unmoved = geometry._warp_all(images, torch.eye(3, dtype=torch.float64).repeat(2, 1, 1))
    assert golden.rel_err(unmoved, images) < 1e-6  # the filter is float32


def test_an_image_does_not_depend_on_its_batch():
    images = pictures(6, 3, 24, 32, dtype=torch.float64)
    torch.manual_seed(4)
    maps = draw_maps(PRESETS["bg"], RandomDraws(images, torch.tensor(1.0)), 24, 32)
    maps[2] = torch.eye(3)
    together = geometry.warp(images, maps)
    for i in range(6):  # the reflection reaches as far as the batch needs; filter tails read a little beyond
        assert golden.rel_err(geometry.warp(images[i : i + 1], maps[i : i + 1])[0], together[i]) < 1e-5


@pytest.mark.parametrize("shape", [(3, 3, 48, 24), (2, 1, 32, 32), (1, 3, 25, 31), (2, 3, 200, 150)])
def test_shapes(shape):
    torch.manual_seed(0)
    images = pictures(*shape)
    y = pipe(PRESETS["bgcfnc"])(images)
    assert y.shape == images.shape
    assert y.isfinite().all()
    assert not torch.equal(y, images)


def test_grey_is_the_mean_of_the_colours():
    torch.manual_seed(0)
    images = pictures(4, 1, 8, 8, dtype=torch.float64)
    colors = draw_colors(PRESETS["color"], RandomDraws(images, torch.tensor(1.0)))
    rgb = recolor(images.expand(4, 3, 8, 8), colors)
    assert golden.rel_err(recolor(images, colors), rgb.mean(dim=1, keepdim=True)) < 1e-12


def test_hue_turns_right_handed():
    third = torch.full([1, 3, 1, 1], 0.0)
    third[0, 0] = 1.0  # red
    cfg = AugmentConfig(hue=1)
    colors = draw_colors(cfg, FixedUniform(torch.zeros(1), 0.5 + 1 / 3))  # + 2/3 pi = a third of a turn
    assert torch.allclose(recolor(third, colors)[0, :, 0, 0], torch.tensor([0.0, 1.0, 0.0]), atol=1e-6)  # green


class FixedUniform(RandomDraws):
    """Every uniform draw has one value; every transform happens."""

    def __init__(self, like: torch.Tensor, value: float) -> None:
        self.like, self.value = like, value

    def uniform(self) -> torch.Tensor:
        return torch.full_like(self.like, self.value)

    def sometimes(self, multiplier, value, neutral):
        return value


def test_filter_bands():
    assert filter_bank().shape == (4, 43)
    identity = torch.zeros(43, dtype=torch.float64)
    identity[21] = 1
    assert torch.allclose(filter_bank().sum(dim=0), identity, atol=1e-10)
    gains = torch.tensor([[3.0, 1.0, 1.0, 0.5]], dtype=torch.float64)
    flat = torch.ones(1, 1, 32, 32, dtype=torch.float64)
    assert torch.allclose(filter_bands(flat, gains), 9 * flat)  # 3 along x, 3 along y
    stripes = torch.ones(1, 1, 32, 33, dtype=torch.float64)
    stripes[..., 1::2] = -1  # the highest frequency along x; reflection continues it
    assert torch.allclose(filter_bands(stripes, gains), 1.5 * stripes)


def test_probability_of_a_rotation():
    torch.manual_seed(0)
    before, after = RandomDraws(torch.zeros(20000, 1, 1, 1), torch.tensor(0.6)).rotations(1.0, math.pi)
    assert float((before != 0).double().mean()) == pytest.approx(1 - math.sqrt(0.4), abs=0.013)
    assert float(((before != 0) | (after != 0)).double().mean()) == pytest.approx(0.6, abs=0.013)
    assert math.pi * 0.99 < float(before.abs().max()) <= math.pi


def test_errors_name_the_cause():
    with pytest.raises(UserError, match="5 channels"):
        pipe(PRESETS["color"])(pictures(1, 5, 32, 32))
    with pytest.raises(UserError, match="more than 21 pixels"):
        pipe(PRESETS["filter"])(pictures(1, 3, 16, 16))


def test_levels_of_other_sizes_move_in_proportion():
    """A smooth picture, augmented and then halved, is nearly the halved picture under the same draw."""
    ramp = torch.linspace(-1, 1, 64)
    images = torch.stack([ramp[:, None].expand(64, 64), ramp.expand(64, 64), (ramp[:, None] * ramp)])[None].repeat(
        4, 1, 1, 1
    )
    pipe = AugmentPipe(dataclasses.replace(PRESETS["bgc"], xint=0.0))  # whole-pixel shifts are rounded at each size
    draw = pipe.draw(images)
    large, small = draw.apply(images), draw.apply(F.avg_pool2d(images, 2))
    inner = slice(4, -4)  # reflections at the border differ
    difference = (F.avg_pool2d(large, 2) - small)[:, :, inner, inner].abs()
    unmoved = (F.avg_pool2d(large, 2) - F.avg_pool2d(images, 2))[:, :, inner, inner].abs()
    assert difference.mean() < 0.1 * unmoved.mean()
