"""Names of metrics: whose way of computing they carry, small samples, and what is offered where images are too few."""

import dataclasses

import numpy as np
import pytest
import torch

from dnnlib import UserError
from metrics import parse_name, table
from metrics.detectors import detector_info
from metrics.detectors.inception import InceptionDetector, graph_pixels, pytorch_fid_pixels
from metrics.families import FAMILIES
from metrics.formulas.frechet import Moments, frechet_distance, moments_of
from metrics.names import fitting_name
from metrics.result import MetricResult


@pytest.mark.parametrize(
    ("name", "ddof"),
    [
        ("fid50k_full", 0),
        ("fid50k", 0),
        ("fid5k_full", 0),
        ("fid50k_inception", 1),
        ("fid50k_pytorchfid", 1),
        ("fd_dinov2", 1),
    ],
)
def test_covariance_of_the_family_that_the_name_carries(name, ddof):
    """StyleGAN's code divides by N, pytorch-fid and those after it by N - 1."""
    gen = torch.Generator().manual_seed(0)
    sides = [torch.randn(7, 3, generator=gen).double(), torch.randn(9, 3, generator=gen).double() + 1]
    metric = parse_name(name)
    got = FAMILIES[metric.family].compute(metric, *map(moments_of, sides), torch.device("cpu"))[name]
    plain = [Moments(len(s), s.mean(0), torch.from_numpy(np.cov(s.numpy(), rowvar=False, ddof=ddof))) for s in sides]
    assert got == pytest.approx(frechet_distance(*plain), rel=1e-9)
    other = [dataclasses.replace(m, cov=m.cov * 1.1) for m in plain]
    assert got != pytest.approx(frechet_distance(*other), rel=1e-3)


def test_small_samples():
    assert parse_name("kid100_lite0").num_generated == parse_name("kid100_lite0").num_real == 100
    assert parse_name("fid100_full").num_real is None
    assert parse_name("cov64_mobilenetv2").neighbours == 5
    for wrong in ("fid5", "fid1000", "kid0100k_x", "fid_lite0"):
        with pytest.raises(UserError):
            parse_name(wrong)


@pytest.mark.parametrize(
    ("name", "images", "want"),
    [
        ("fid50k_full", 5321, "fid5k_full"),
        ("fid50k_full", 130, "fid130_full"),
        ("kid2k_lite0", 999, "kid999_lite0"),
        ("pr50k3", 2000, "pr2k3"),
        ("pr50k3_full", 500, "pr500_full"),
        ("fd_dinov2", 4000, "fid4k_dinov2-vitl14"),
        ("fd_dinov2_5k", 3000, "fd_dinov2_3k"),
        ("fd_dinov2_5k", 300, "fid300_dinov2-vitl14"),
        ("kid100_lite0", 50, "kid50_lite0"),
    ],
)
def test_a_name_that_fits(name, images, want):
    assert fitting_name(name, images) == want
    metric = parse_name(want)
    assert metric.num_generated <= images
    assert metric.detector == parse_name(name).detector


def test_tables_mark_small_samples():
    fields = {f.name: 0 for f in dataclasses.fields(MetricResult)}
    texts = {"detector": "d", "resize_mode": "r", "dataset": "x", "dataset_hash": "0" * 64, "results": {"m": 1.0}}
    small, usual = (MetricResult(**(fields | texts | {"num_generated": n})) for n in (100, 1000))
    assert "100 (small sample)" in table([small])
    assert "small sample" not in table([usual])


def test_pixels_as_the_programs_feed_them():
    x = torch.tensor([0.0, 128, 255])
    assert graph_pixels(x).tolist() == [-1, 0, 127 / 128]
    assert pytorch_fid_pixels(x).tolist() == pytest.approx([-1, 1 / 255, 1], abs=1e-6)
    info = detector_info("inception-pytorch-fid")
    assert (info.resize_mode, info.sha256) == ("torch_bilinear", detector_info("inception-2015-12-05").sha256)
    seen = []
    detector = InceptionDetector.__new__(InceptionDetector)
    torch.nn.Module.__init__(detector)
    detector.pixels, detector.resize_mode = pytorch_fid_pixels, info.resize_mode
    detector.network = lambda images: seen.append(images) or images
    detector.classifier = torch.nn.Identity()
    detector(torch.full((1, 3, 20, 20), 255, dtype=torch.uint8), ("features",))
    assert seen[0].shape == (1, 3, 299, 299)
    assert (seen[0] - 1).abs().max() < 1e-5
