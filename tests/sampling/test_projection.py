"""Projection: a generated image is found again, an image from elsewhere comes closer; the distance itself."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from support import nasty_files
from support.small_generators import small_generator
from torch import nn

from dnnlib import UserError
from metrics.detectors import load_detector
from training.networks.image_space import to_uint8
from training.sampling.pictures import to_pil
from training.sampling.projection.perceptual import PerceptualDistance
from training.sampling.projection.search import ProjectionConfig, load_target, project
from training.sampling.seeds import images_of_styles, styles_of_seeds

NO_LABEL = torch.zeros(1, 0)


class SmallDetector(nn.Module):
    """Two convolutions of random weights, with the face of a detector."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 16, 3, stride=2)

    def forward(self, images, outputs):
        maps = self.two(self.one(images.float() / 255).relu())
        return dict.fromkeys(outputs, maps.mean((2, 3)))


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    return SmallDetector().eval().requires_grad_(False)


def image_of(G, seed, psi=1.0):
    return G.synthesis(styles_of_seeds(G, [seed], NO_LABEL, psi), noise_mode="const")


def test_distance_is_what_its_docstring_says(detector):
    a, b = torch.rand(2, 1, 3, 20, 24) * 1.9 - 0.95
    first = [detector.one(x * 127.5 / 255 + 128 / 255) for x in (a, b)]
    second = [detector.two(x.relu()) for x in first]
    parts = [(a - b).square().sum(1).mean()]
    for p, q in (first, second):
        parts.append((nn.functional.normalize(p) - nn.functional.normalize(q)).square().sum(1).mean())
    assert PerceptualDistance(detector, a)(b).item() == pytest.approx(float(sum(parts)) / 3, rel=1e-5)
    assert PerceptualDistance(detector, a)(a).item() == 0


def test_grey_images_and_batches(detector):
    target, images = torch.rand(1, 1, 16, 16), torch.rand(3, 1, 16, 16)
    distance = PerceptualDistance(detector, target)
    together = distance(images)
    assert together.shape == (3,)
    torch.testing.assert_close(together, torch.cat([distance(image[None]) for image in images]))


def test_detector_without_feature_maps_is_refused():
    class Tokens(nn.Module):
        def forward(self, images, outputs):
            return {"features": images.flatten(1)}

    with pytest.raises(UserError, match="no feature maps"):
        PerceptualDistance(Tokens(), torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize("space", ["w", "w+"])
def test_a_generated_image_is_found_again(detector, space):
    G = small_generator()
    target = image_of(G, 12, psi=0.5)
    seen = []
    found = project(
        G, PerceptualDistance(detector, target), ProjectionConfig(steps=100, space=space), NO_LABEL, seen.append
    )
    assert found.distance < found.average_distance / 20
    assert len(found.distances) == len(seen) == 100
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == found.distance == min(found.distances)
    difference = (images_of_styles(G, found.ws).int() - to_uint8(target).int()).abs().float().mean()
    start = (images_of_styles(G, G.mapping.w_avg.expand(1, G.num_ws, -1)).int() - to_uint8(target).int()).abs()
    assert difference < start.float().mean() / 5
    rows = found.ws[0]
    assert torch.equal(rows[0], rows[-1]) == (space == "w")


def test_an_image_of_another_generator_comes_at_least_twice_as_close(detector):
    G, other = small_generator(), small_generator(seed=1)
    target = image_of(other, 3)
    distance = PerceptualDistance(detector, target)
    found = project(G, distance, ProjectionConfig(steps=200), NO_LABEL)
    assert found.distance < found.average_distance / 2
    assert distance(G.synthesis(found.ws, noise_mode="const")).item() == pytest.approx(found.distance, rel=1e-4)


def test_projection_repeats_and_obeys_its_seed_and_label(detector):
    G = small_generator(c_dim=2)
    distance = PerceptualDistance(detector, torch.rand(1, 3, 32, 32))
    c = torch.eye(2)[:1]
    runs = [project(G, distance, ProjectionConfig(steps=5, seed=s), c).ws for s in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    with_other = project(G, distance, ProjectionConfig(steps=5), c.flip(1))
    assert not torch.equal(with_other.ws, runs[0])


def test_lite0_sees_and_can_be_descended():
    try:
        detector = load_detector("lite0")
    except UserError as e:
        pytest.skip(str(e))
    G = small_generator()
    target = image_of(G, 12)
    distance = PerceptualDistance(detector, target)
    ws = styles_of_seeds(G, [5], NO_LABEL).requires_grad_(True)
    (gradient,) = torch.autograd.grad(distance(G.synthesis(ws, noise_mode="const")).sum(), ws)
    assert torch.isfinite(gradient).all()
    with torch.no_grad():
        step = gradient / gradient.norm() * 0.01
        near, here = (distance(G.synthesis(w, noise_mode="const")).item() for w in (ws - step, ws))
    slope = (near - here) / 0.01
    assert math.isclose(slope, -gradient.norm().item(), rel_tol=0.1)


def test_targets_are_cropped_resized_and_flattened(tmp_path):
    G = small_generator(start_resolution=(8, 4), img_resolution=(32, 16))
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[:, :, 3] = 255
    pixels[:20, :, 0] = 255  # the upper half red, the lower one black
    pixels[:, :5, 3] = 0  # cropped away
    pixels[30:, :, 3] = 0  # transparent: white
    Image.fromarray(pixels).save(tmp_path / "t.png")
    target = load_target(str(tmp_path / "t.png"), G)
    assert target.shape == (1, 3, 32, 16)
    assert target[0, :, 4, 8].tolist() == [1, -1, -1]
    assert target[0, :, 20, 8].tolist() == [-1, -1, -1]
    assert target[0, :, 30, 8].tolist() == [1, 1, 1]
    to_pil(to_uint8(target[0])).save(tmp_path / "same.png")
    assert torch.allclose(load_target(str(tmp_path / "same.png"), G), target, atol=1 / 127)
    (tmp_path / "text.png").write_text("no picture")
    for name in ("text.png", "absent.png"):
        with pytest.raises(UserError, match="--target"):
            load_target(str(tmp_path / name), G)


@pytest.mark.parametrize("name", ["grey-16.png", "grey-12.tiff", "grey-16-clear-1.png", "exif-behind.png", "xmp.png"])
def test_targets_are_read_as_the_converter_reads_pictures(tmp_path, name):
    content, pixels = nasty_files.wanted_files()[name]
    (tmp_path / name).write_bytes(content)
    target = load_target(str(tmp_path / name), small_generator(img_resolution=(24, 24), start_resolution=(6, 6)))
    assert np.abs(to_uint8(target)[0].permute(1, 2, 0).numpy() - pixels).max() <= 1


def test_the_first_frame_of_an_animation_is_a_target(tmp_path):
    (tmp_path / "a.gif").write_bytes(nasty_files.skipped_files()["animated.gif"][0])
    target = load_target(str(tmp_path / "a.gif"), small_generator(img_resolution=(24, 24), start_resolution=(6, 6)))
    with Image.open(tmp_path / "a.gif") as first:
        expected = np.asarray(first.convert("RGB"))
    assert np.abs(to_uint8(target)[0].permute(1, 2, 0).numpy() - expected.astype(int)).max() <= 1


def test_target_of_a_format_whose_decoder_starts_a_program_is_refused(tmp_path):
    picture = to_pil(to_uint8(torch.rand(3, 8, 8)))
    picture.save(tmp_path / "x.eps")
    (tmp_path / "x.eps").rename(tmp_path / "x.png")
    with pytest.raises(UserError, match="not an image file that can be read"):
        load_target(str(tmp_path / "x.png"), small_generator())
