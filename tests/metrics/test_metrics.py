"""Measuring as a whole: names, shared passes, cache, determinism, what bad input says."""

import copy
import dataclasses
import itertools
import json
import socket

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from support.metric_toys import ToyDetector, ToyGenerator, ToyImages, register_toys

from dnnlib import UserError, cache
from metrics import compute_metrics, list_metrics, parse_name, path_length, require_detectors, table
from metrics.baselines import PCAGaussian
from metrics.detectors import DetectorMissing, load_detector, registry
from metrics.formulas.frechet import frechet_distance, moments_of
from metrics.formulas.kernel import kernel_distance
from metrics.formulas.neighbours import density_coverage
from metrics.sources import GeneratorSource
from training.dataset import open_dataset, pictures
from training.networks.image_space import to_uint8

EMOJI = "datasets/noto-emoji-32.zip"


pytestmark = pytest.mark.usefixtures("toys")


def values(results):
    return dict(itertools.chain.from_iterable(r.results.items() for r in results))


# -- names ---------------------------------------------------------------------------------------------------------


def test_known_names_mean_what_they_mean_in_the_field():
    full, legacy = parse_name("fid50k_full"), parse_name("fid50k")
    assert (full.detector, full.num_generated, full.num_real) == ("inception-2015-12-05", 50_000, None)
    assert (legacy.num_real, legacy.real_choice, legacy.mirror) == (50_000, "first", True)
    assert parse_name("pr50k3_full").neighbours == 3
    assert parse_name("pr50k3_full").detector == "vgg16"
    assert not full.mirror
    ppl = {name: parse_name(name) for name in ("ppl2_wend", "ppl_zfull", "ppl_wfull", "ppl_zend", "ppl_wend")}
    assert [(m.space, m.sampling, m.crop) for m in ppl.values()] == [
        ("w", "end", False),
        ("z", "full", True),
        ("w", "full", True),
        ("z", "end", True),
        ("w", "end", True),
    ]
    for name in list_metrics():
        assert parse_name(name).name == name


def test_patterned_names():
    m = parse_name("kid2k_lite0")
    assert (m.family, m.detector, m.num_generated, m.num_real, m.real_choice) == ("kid", "lite0", 2000, 2000, "random")
    assert parse_name("fid5k_full").num_real is None
    assert parse_name("cov10k_full_dinov2").detector == "dinov2-vitl14"
    assert (parse_name("cov2k_lite0").neighbours, parse_name("cov2k7_lite0").neighbours) == (5, 7)
    assert parse_name("fd5k_mobilenetv2").num_real == 5000
    assert parse_name("fd_dinov2").num_generated == 50_000
    assert parse_name("fd_dinov2_5k").detector == "dinov2-vitl14"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fidd50k", "unknown metric 'fidd50k'; known: fid50k_full"),
        ("", "unknown metric ''"),
        ("kid2k_lite9", "unknown detector 'lite9'; known: .*lite0"),
        ("kid0k_lite0", "asks for 0 images"),
        ("fid5k3_lite0", "fid takes no number of neighbours"),
        ("fd5k", "names no detector"),
        ("is5k_dinov2", "the detector dinov2-vitl14 has no probs"),
    ],
)
def test_bad_names(name, message):
    with pytest.raises(UserError, match=message) as e:
        parse_name(name)
    assert "\n" not in str(e.value)


# -- one pass, right numbers ---------------------------------------------------------------------------------------

ALL = ["fid1k_toy", "kid1k_toy", "is1k_toy", "pr1k_toy", "cov1k_toy"]


def test_results_are_the_formulas_on_all_images():
    G, dataset = ToyGenerator(), ToyImages()
    result = values(compute_metrics(ALL, G, dataset))
    detector = ToyDetector()
    real = detector(dataset.images, [])["features"]
    fake = detector(GeneratorSource(G, dataset).images(0, 1000), [])["features"]
    assert result["fid1k_toy"] == pytest.approx(frechet_distance(moments_of(real), moments_of(fake)), rel=1e-5)
    assert result["kid1k_toy"] == pytest.approx(kernel_distance(real, fake)[0], rel=1e-5)
    density, coverage = density_coverage(real, fake)
    assert result["cov1k_toy_density"] == pytest.approx(density, abs=2e-3)
    assert result["cov1k_toy_coverage"] == pytest.approx(coverage, abs=2e-3)
    assert set(result) == {
        "fid1k_toy",
        "kid1k_toy",
        "is1k_toy_mean",
        "is1k_toy_std",
        "pr1k_toy_precision",
        "pr1k_toy_recall",
        "cov1k_toy_density",
        "cov1k_toy_coverage",
    }


def test_all_metrics_share_one_pass_of_each_side(monkeypatch):
    dataset, made = ToyImages(), []
    monkeypatch.setattr(ToyGenerator, "forward", lambda self, z, c: made.append(len(z)) or torch.zeros(len(z), 3, 8, 8))
    compute_metrics([*ALL, "kid1k_full_toy"], ToyGenerator(), dataset)
    assert sum(made) == 1000
    assert dataset.loads == 1000


def test_metrics_of_different_sizes_share_images():
    """The images of a small metric are the first ones of a larger one, and each is what it is alone."""
    G, dataset = ToyGenerator(), ToyImages(2500)
    together = values(compute_metrics(["kid1k_toy", "kid2k_toy"], G, dataset))
    alone = values(compute_metrics(["kid1k_toy"], G, dataset)) | values(compute_metrics(["kid2k_toy"], G, dataset))
    assert together == pytest.approx(alone, rel=1e-6)
    assert together["kid1k_toy"] != together["kid2k_toy"]


def test_old_names_count_mirrored_images_if_training_did():
    dataset, G = ToyImages(250), ToyGenerator()
    wanted = ["small_fid50k", "fid1k_full_toy"]
    plain, mirrored = (compute_metrics(wanted, G, dataset, mirror=mirror) for mirror in (False, True))
    assert [r.num_real for r in plain] == [250, 250]
    assert [r.num_real for r in mirrored] == [500, 250]
    assert plain[1].results == mirrored[1].results
    fake = ToyDetector()(GeneratorSource(G, dataset).images(0, 300), [])["features"]
    real = ToyDetector()(torch.cat([dataset.images, dataset.images.flip(3)]), [])["features"]
    expected = frechet_distance(moments_of(real).biased(), moments_of(fake).biased())
    assert mirrored[0].results["small_fid50k"] == pytest.approx(expected, rel=1e-5)


def test_a_set_of_images_is_measured_like_a_network():
    G, dataset = ToyGenerator(), ToyImages()
    made = ToyImages(1000)
    made.images = GeneratorSource(G, dataset).images(0, 1000)
    by_network = compute_metrics(["fid1k_toy"], G, dataset)
    by_images = compute_metrics(["fid1k_toy"], dataset=dataset, images=made)
    assert values(by_images) == pytest.approx(values(by_network), rel=1e-6)
    assert by_images[0].seed is None


# -- determinism ---------------------------------------------------------------------------------------------------


def test_batch_size_does_not_matter():
    G, dataset = ToyGenerator(c_dim=4), ToyImages(classes=4)
    wanted = [*ALL, "small_ppl2_wend"]
    results = [values(compute_metrics(wanted, G, dataset, batch=batch, cache=False)) for batch in (7, 64, 1000)]
    assert results[1] == pytest.approx(results[0], rel=1e-5)
    assert results[2] == pytest.approx(results[0], rel=1e-5)


def test_seed_matters_and_repeats():
    G, dataset = ToyGenerator(), ToyImages()
    first, again, other = (values(compute_metrics(["kid1k_toy"], G, dataset, seed=s)) for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_measuring_leaves_random_state_and_mode_alone():
    G, dataset = ToyGenerator().train(), ToyImages()
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(5)
    np.random.seed(5)
    compute_metrics(["kid1k_toy"], G, dataset)
    assert torch.equal(torch.rand(3), expected[0])
    assert (np.random.rand(3) == expected[1]).all()
    assert G.training


def test_labels_follow_the_data_set():
    dataset = ToyImages(400, classes=4)
    _, c, _ = GeneratorSource(ToyGenerator(c_dim=4), dataset).latents(0, 2000)
    assert (c.sum(1) == 1).all()
    assert (c.mean(0) - 0.25).abs().max() < 0.05


def _rank(rank, folder, port):
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    register_toys(folder)
    results = compute_metrics([*ALL, "small_ppl2_wend"], ToyGenerator(), ToyImages(), batch=64)
    (folder / f"result{rank}.json").write_text(json.dumps(values(results)))
    try:
        compute_metrics(["kid1k_broken"], ToyGenerator(), ToyImages())
    except UserError as e:
        (folder / f"error{rank}.txt").write_text(str(e))
    torch.distributed.destroy_process_group()


def test_ranks_share_the_work_and_agree(tmp_path):
    """Two processes give the numbers of one, both know them, and an error ends both."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    mp.spawn(_rank, (tmp_path, port), nprocs=2)
    single = values(compute_metrics([*ALL, "small_ppl2_wend"], ToyGenerator(), ToyImages(), cache=False))
    shared = [json.loads((tmp_path / f"result{rank}.json").read_text()) for rank in (0, 1)]
    assert shared[0] == shared[1]
    assert shared[0] == pytest.approx(single, rel=1e-6)
    for rank in (0, 1):
        assert "non-finite" in (tmp_path / f"error{rank}.txt").read_text()


# -- path length ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def plain_path_length(G, metric, seed=0):
    """Karras et al. 2019, eq. 2 and 3, pair by pair in float64; the toy detector's embedding is the image / 255."""
    G = copy.deepcopy(G).double()
    distances = []
    for i in range(metric.num_generated):
        rng = np.random.Generator(np.random.Philox(key=[seed, i]))
        z = torch.from_numpy(rng.standard_normal((2, 6), dtype=np.float32)).double()
        t = float(rng.random(dtype=np.float32)) if metric.sampling == "full" else 0.0
        images = []
        for u in (t, t + 1e-4):
            if metric.space == "w":
                w = G.mapping(z, torch.zeros(2, 0))
                w = w[:1] + (w[1:] - w[:1]) * u
            else:
                a, b = z[:1] / z[:1].norm(), z[1:] / z[1:].norm()
                angle = torch.arccos((a * b).sum())
                w = G.mapping((a * torch.sin((1 - u) * angle) + b * torch.sin(u * angle)) / angle.sin(), z[:1, :0])
            image = (G.synthesis(w, "const") + 1) * 127.5
            image = image[:, :, 3:7, 2:6] if metric.crop else image
            images.append(image.flatten() / 255)
        distances.append(float((images[0] - images[1]).square().sum()) / 1e-8)
    kept = np.sort(distances)[2:-2]  # 1 % of 300 values on each side, rounded outwards
    return kept.mean()


@pytest.mark.parametrize("name", ["small_ppl2_wend", "small_ppl_wfull", "small_ppl_zfull"])
def test_path_length_against_the_plain_version(name):
    G = ToyGenerator()
    result = values(compute_metrics([name], G, ToyImages()))[name]
    assert result == pytest.approx(plain_path_length(G, parse_name(name)), rel=0.03)  # steps of 1e-4 in float32


def test_large_images_are_box_reduced():
    images = torch.rand(1, 3, 512, 512) * 2 - 1
    reduced = path_length._prepare(images, crop=False)
    assert reduced.shape == (1, 3, 256, 256)
    torch.testing.assert_close(reduced[0, 0, 0, 0], (images[0, 0, :2, :2].mean() + 1) * 127.5)
    # The old names crop first, then reduce by the factor of the whole image, as the original does.
    cropped = path_length._prepare(images, crop=True)
    assert cropped.shape == (1, 3, 128, 128)
    torch.testing.assert_close(cropped[0, 0, 0, 0], (images[0, 0, 192:194, 128:130].mean() + 1) * 127.5)
    assert path_length._prepare(images[:, :1], crop=False).shape == (1, 3, 256, 256)


# -- cache ---------------------------------------------------------------------------------------------------------


def test_features_of_the_data_set_are_cached_by_content():
    G, dataset = ToyGenerator(), ToyImages()
    first = values(compute_metrics(ALL, G, dataset))
    copy_of_it = ToyImages(name="elsewhere")
    assert values(compute_metrics(ALL, G, copy_of_it)) == first
    assert copy_of_it.loads == 0
    other = ToyImages(seed=1)
    assert values(compute_metrics(ALL, G, other)) != first
    assert other.loads == 1000


def test_another_reader_of_pictures_makes_other_features(monkeypatch):
    """The hash of a data set is of its files: what is made of them may change with the program."""
    G, dataset = ToyGenerator(), ToyImages()
    compute_metrics(["fid1k_toy"], G, dataset)
    monkeypatch.setattr(pictures, "VERSION", pictures.VERSION + 1)
    compute_metrics(["fid1k_toy"], G, dataset)
    assert dataset.loads == 2000
    compute_metrics(["fid1k_toy"], G, dataset)
    assert dataset.loads == 2000


def test_without_cache_nothing_is_written_or_read():
    dataset = ToyImages()
    for _ in range(2):
        compute_metrics(["kid1k_toy"], ToyGenerator(), dataset, cache=False)
    assert dataset.loads == 2000
    assert not cache.cache_root().exists()


def test_a_damaged_cache_file_is_made_again():
    G, dataset = ToyGenerator(), ToyImages()
    first = values(compute_metrics(["fid1k_toy"], G, dataset))
    (file,) = (cache.cache_root() / "features").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert values(compute_metrics(["fid1k_toy"], G, dataset)) == first
    assert dataset.loads == 2000


def test_a_cache_that_cannot_be_written_costs_no_result(caplog):
    cache.cache_root().write_text("a file where the folder should be")
    assert values(compute_metrics(["fid1k_toy"], ToyGenerator(), ToyImages()))
    assert "not cached" in caplog.text


def test_other_weights_are_other_features(tmp_path):
    G, dataset = ToyGenerator(), ToyImages()
    compute_metrics(["fid1k_toy"], G, dataset)
    (tmp_path / "toy.bin").write_bytes(b"other weights")
    compute_metrics(["fid1k_toy"], G, dataset)
    assert dataset.loads == 2000


# -- results -------------------------------------------------------------------------------------------------------


def test_a_result_names_everything(tmp_path):
    dataset = ToyImages(1500)
    (result,) = compute_metrics(["kid1k_toy"], ToyGenerator(), dataset, bootstrap=10)
    path = result.append_to(tmp_path, "network-snapshot-000010.pkl")
    result.append_to(tmp_path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert path.name == "metric-kid1k_toy.jsonl"
    assert len(lines) == 2
    assert list(lines[0])[:5] == ["results", "metric", "total_time", "snapshot_pkl", "timestamp"]
    assert lines[0]["snapshot_pkl"] == "network-snapshot-000010.pkl"
    assert lines[0]["results"].keys() == {"kid1k_toy", "kid1k_toy_std"}
    expected = {
        "detector": "toy",
        "detector_version": "1",
        "resize_mode": "none",
        "num_generated": 1000,
        "num_real": 1000,
        "dataset": "toys",
        "dataset_hash": dataset.content_hash(),
        "generated": "ToyGenerator",
        "seed": 0,
    }
    assert {k: lines[0][k] for k in expected} == expected
    head, *rows = table([result]).splitlines()
    assert head.split()[:3] == ["metric", "value", "detector"]
    assert [row.split()[0] for row in rows] == ["kid1k_toy", "kid1k_toy_std"]
    assert str(result).startswith("kid1k_toy ")


# -- bad input -----------------------------------------------------------------------------------------------------


class DivergedGenerator(ToyGenerator):
    def synthesis(self, ws, noise_mode="random"):
        return super().synthesis(ws, noise_mode) * torch.nan


@pytest.mark.parametrize(
    ("wanted", "settings", "message"),
    [
        (["kid1k_toy"], {"dataset": ToyImages(1)}, "needs at least 2 real images, toys has 1"),
        (["cov1k_toy"], {"dataset": ToyImages(5)}, "needs at least 6 real images, toys has 5"),
        (["kid1k_toy"], {"dataset": ToyImages(channels=1)}, "the network makes images of 3 channels, .* toys has 1"),
        (["kid1k_toy"], {"G": ToyGenerator(c_dim=4)}, "labels of length 4, the labels of toys have length 0"),
        (["kid1k_toy"], {"dataset": None}, "need a data set"),
        (["kid1k_toy"], {"images": ToyImages()}, "give one of them"),
        (["kid1k_toy"], {"G": None}, "give one of them"),
        (["kid2k_toy"], {"G": None, "images": ToyImages()}, "needs 2000 generated images, toys has 1000"),
        (["ppl2_wend"], {"G": None, "images": ToyImages()}, "needs a network"),
        (["kid1k_broken"], {}, "detector broken gives non-finite features for images of toys"),
        (["kid1k_toy"], {"G": DivergedGenerator()}, "non-finite pixels: it has diverged"),
        (["small_ppl2_wend"], {"G": DivergedGenerator()}, "non-finite path lengths"),
        (["kid1k_lite0"], {"resize_mode": "nearest"}, "unknown resize mode 'nearest'"),
    ],
)
def test_bad_input_is_one_line(wanted, settings, message):
    with pytest.raises(UserError, match=message) as e:
        compute_metrics(wanted, **({"G": ToyGenerator(), "dataset": ToyImages(50)} | settings))
    assert "\n" not in str(e.value)


def test_require_detectors(monkeypatch):
    require_detectors(["kid2k_lite0", "kid1k_toy"])
    offline = dataclasses.replace(registry.detector_info("inception-2015-12-05"), url="http://127.0.0.1:9/x.pth")
    monkeypatch.setitem(registry._DETECTORS, "inception-2015-12-05", offline)
    with pytest.raises(DetectorMissing, match="pt_inception-2015-12-05-6726825d.pth"):
        require_detectors(["kid2k_lite0", "fid50k_full"])
    with pytest.raises(UserError, match="unknown metric"):
        require_detectors(["kod50"])


# -- on real images ------------------------------------------------------------------------------------------------


def test_grey_images_are_measured():
    result = compute_metrics(["kid1k_toy"], ToyGenerator(channels=1), ToyImages(200, channels=1))
    assert np.isfinite(result[0].results["kid1k_toy"])


def test_uint8_rounds_as_the_field_does():
    x = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0, 127 / 127.5 - 1])
    assert to_uint8(x).tolist() == [0, 0, 128, 255, 255, 127]


@pytest.fixture(scope="module")
def emoji():
    """Two disjoint sets of 120 embedded pictures, and their features."""
    dataset = open_dataset(EMOJI)
    order = np.random.RandomState(0).permutation(len(dataset))
    real, other = dataset.load(order[:120])[0], dataset.load(order[120:240])[0]
    return mobile_features(real), mobile_features(other), other


def mobile_features(images):
    with torch.no_grad():
        return load_detector("mobilenetv2")(images, ["features"])["features"]


def noisy(images, strength):
    noise = torch.from_numpy(np.random.RandomState(1).randn(*images.shape))
    return (images + strength * noise).clamp(0, 255).to(torch.uint8)


def blurred(images, width):
    reduced = torch.nn.functional.avg_pool2d(images.float(), width)
    return torch.nn.functional.interpolate(reduced, images.shape[2:], mode="bilinear").to(torch.uint8)


@pytest.mark.parametrize("damage", ["noise", "blur", "mode dropping"])
def test_distances_rise_with_damage(emoji, damage):
    """FD and KID to one half of real pictures, of the other half with more and more damage."""
    real, other, images = emoji
    if damage == "noise":
        levels = [other, *(mobile_features(noisy(images, s)) for s in (15, 45, 120))]
    elif damage == "blur":
        levels = [other, *(mobile_features(blurred(images, w)) for w in (2, 4, 8))]
    else:
        order = (other @ torch.linalg.svd(other - other.mean(0), full_matrices=False).Vh[0]).argsort()
        levels = [other[order[:n].repeat(120 // n)] for n in (120, 60, 24, 6)]
    distances = [frechet_distance(moments_of(real), moments_of(level)) for level in levels]
    kernels = [kernel_distance(real, level, subsets=1)[0] for level in levels]
    assert distances == sorted(distances)
    assert kernels == sorted(kernels)
    assert distances[-1] > 1.5 * distances[0]
    assert kernels[-1] > kernels[0] + 0.05


def test_baselines_order_and_reconstruct():
    dataset = ToyImages(400)
    mean, gaussian = (PCAGaussian(dataset, n) for n in (0, 20))
    exact = dataset.images.double().mean(0)
    assert (to_uint8(mean(torch.zeros(1, 1)))[0].double() - exact).abs().max() <= 0.5
    samples = to_uint8(gaussian(torch.from_numpy(np.random.RandomState(0).randn(4000, 20)).float())).double()
    assert (samples.mean(0) - exact).abs().max() < 5
    assert float(samples.var(0).mean()) == pytest.approx(
        float(dataset.images.double().var(0).mean()), rel=0.2
    )  # clipping takes some
    kids = [values(compute_metrics(["kid1k_toy"], G, dataset))["kid1k_toy"] for G in (mean, gaussian)]
    assert kids[0] > 5 * kids[1]
