"""Feature alignment: the formula, what the encoder sees, a training with it, and what it refuses."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from support.tiny_runs import everything, recipe, trainer

from dnnlib.errors import UserError
from metrics.detectors import DetectorInfo, registry
from training import networks
from training.augment.diffaugment import DiffAugment, DiffAugmentConfig
from training.augment.draw import NoAugmentation
from training.augment.pipe import PRESETS, AugmentPipe
from training.networks.generators.gat import GATConfig
from training.objectives.alignment import Alignment, AlignmentConfig
from training.options import check_config

WITH_LITE0 = ["D.feature_dim=1280", "D.feature_hidden=8", "loss.alignment.detector=lite0", "loss.alignment.weight=0.5"]


class Colours(torch.nn.Module):
    """The picture itself, coarsely: three features, three spatial ones."""

    resize_mode = "none"

    def forward(self, images, outputs):
        x = images.float() / 255
        return {"features": x.mean((2, 3)), "spatial": F.adaptive_avg_pool2d(x, (2, 3))}


@pytest.fixture
def colours(monkeypatch):
    monkeypatch.setattr(registry, "_DETECTORS", dict(registry._DETECTORS))
    registry._build.cache_clear()
    registry.register_detector(
        DetectorInfo("colours", "1", ("features", "spatial"), 4, "none", "MIT", "tests", lambda path, mode: Colours(),
                     "x", 0, locate=lambda: Path(__file__))
    )  # fmt: skip
    G = networks.build(GATConfig(img_resolution=(8, 12), patch=2, depth=4, width=16, heads=2))
    return Alignment(AlignmentConfig("colours"), G)


def test_the_formula(colours):
    real = torch.rand(2, 3, 8, 12) * 2 - 1
    of_class, of_grid = torch.randn(2, 3), torch.randn(2, 4 * 6, 3)
    found = colours.loss(real, NoAugmentation(), of_class, of_grid, (4, 6))
    seen = (real * 127.5 + 128).clamp(0, 255).to(torch.uint8).float() / 255
    grid = F.interpolate(F.adaptive_avg_pool2d(seen, (2, 3)), (4, 6), mode="bicubic", align_corners=False)
    for n in range(2):
        mean = seen[n].mean((1, 2))
        expected = 1 - of_class[n] @ mean / (of_class[n].norm() * mean.norm())
        for token in range(24):
            at = grid[n, :, token // 6, token % 6]
            expected += (1 - of_grid[n, token] @ at / (of_grid[n, token].norm() * at.norm())) / 24
        assert found[n].item() == pytest.approx(expected.item(), abs=1e-5)
    assert found.min() > 0


def test_features_that_agree_cost_nothing(colours):
    real = torch.rand(2, 3, 8, 12)
    seen = (real * 127.5 + 128).to(torch.uint8).float() / 255
    grid = F.adaptive_avg_pool2d(seen, (2, 3)).flatten(2).transpose(1, 2)
    assert colours.loss(real, NoAugmentation(), seen.mean((2, 3)) * 7, grid, (2, 3)).abs().max() < 1e-5


@pytest.mark.parametrize("augment", [DiffAugment(DiffAugmentConfig(color=1)), AugmentPipe(PRESETS["bgcfnc"])])
def test_the_encoder_sees_the_picture_moved_but_in_its_colours(augment):
    torch.manual_seed(3)
    images = torch.rand(6, 3, 32, 32)
    draw = augment.draw(images)
    grey = torch.full_like(images, 0.5)
    if isinstance(augment, DiffAugment):
        assert set(draw.moved(grey).unique().tolist()) <= {0.0, 0.5}, "moved, and nothing else"
        rows, columns = draw.shift
        for i, (row, column) in enumerate(zip(rows.tolist(), columns.tolist())):
            picture = F.pad(images[i], (4, 4, 4, 4))[:, 4 + row : 36 + row, 4 + column : 36 + column]
            expected = picture.flip(2) if draw.flip[i] else picture
            assert torch.equal(draw.moved(images)[i], expected)
    else:
        assert torch.equal(draw.moved(images), type(draw)(draw.size, draw.maps, None, None, None, None).apply(images))
    assert not torch.equal(draw.moved(images), draw.apply(images))


def test_training_with_an_encoder():
    """Its loss falls, only D's features learn from it, and a resumed run is bit-identical."""
    whole, first, second = (trainer(recipe("gat", *WITH_LITE0)) for _ in range(3))
    seen = []
    for _ in range(6):
        whole.step()
        seen.append(whole.stats.take()["Loss/D/alignment"]["mean"])
    assert 1.5 < seen[0] < 2.5, "at first the features have nothing in common"
    assert seen[-1] < seen[0] - 0.05
    for _ in range(3):
        first.step()
        first.stats.take()
    second.load_state(first.state())
    for _ in range(3):
        second.step()
        second.stats.take()
    expected, found = everything(whole), everything(second)
    assert all(torch.equal(value, found[key]) for key, value in expected.items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["loss.alignment.detector=lite0"], "D.feature_dim=1280"),
        (["loss.alignment.detector=lite0", "D.kind=stylegan2_discriminator"], "D, a gat_discriminator"),
        (["loss.alignment.detector=inception-2015-12-05", "D.feature_dim=8"], "no spatial features"),
        (["loss.alignment.detector=nonsense"], "unknown detector 'nonsense'"),
        (["loss.alignment.detector=dinov2-vitb14", "loss.alignment.file=/nowhere.pth"], "/nowhere.pth does not exist"),
    ],
)
def test_what_does_not_fit_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        check_config(recipe("gat", *settings))
