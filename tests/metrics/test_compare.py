"""Two networks on the same latents, and what a network was not trained on: as an API and as calc_metrics.py."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from support.metric_toys import ToyDetector, ToyGenerator, ToyImages

import calc_metrics
from dnnlib import UserError
from metrics import Split, compare_networks, comparison_table, compute_metrics
from metrics.formulas.memorisation import memorisation, nearest_distances
from metrics.sources import GeneratorSource
from training import networks
from training.config import TrainingConfig
from training.dataset import open_dataset
from training.networks.generators.stylegan2 import StyleGAN2Config
from training.options import check_config

METRICS = ["fid100_toy", "kid100_toy", "is100_toy", "pr100_toy", "cov100_toy"]


pytestmark = pytest.mark.usefixtures("toys")


def changed(amount: float) -> ToyGenerator:
    G = ToyGenerator()
    G.basis = G.basis * amount
    return G


# -- two networks ------------------------------------------------------------------------------------------------------


def test_differences_of_two_networks():
    A, B, dataset = ToyGenerator(), changed(0.7), ToyImages(300)
    found = compare_networks(METRICS, A, B, dataset, bootstrap=50)
    alone = [compute_metrics(METRICS, G, dataset) for G in (A, B)]
    for c, a, b in zip(found, *alone):
        for name, difference in c.differences.items():
            assert difference == pytest.approx(b.results[name] - a.results[name])
            assert c.errors[name] > 0
        assert c.resamplings == 50
    shown = [name for c in found for name in c.differences]
    assert "is100_toy_mean" in shown
    assert "is100_toy_std" not in shown, "deviations aren't compared"


def test_pairing_takes_out_what_the_networks_have_in_common():
    """Nearly the same network: the difference's error is far below that of either value. The same: no difference."""
    A, dataset = ToyGenerator(), ToyImages(300)
    (near,) = compare_networks(["kid300_toy"], A, changed(0.999), dataset)
    (alone,) = compute_metrics(["kid300_toy"], A, dataset, bootstrap=100)
    assert near.errors["kid300_toy"] < 0.05 * alone.results["kid300_toy_std"]
    (same,) = compare_networks(["kid300_toy"], A, ToyGenerator(), dataset)
    assert same.differences == {"kid300_toy": 0}
    assert same.errors == {"kid300_toy": 0}
    assert "no clear" not in comparison_table([same])


def test_both_see_the_same_latents_and_labels(monkeypatch):
    seen: dict[int, list[torch.Tensor]] = {}

    class Noting(ToyGenerator):
        def forward(self, z, c, **kwargs):
            seen.setdefault(id(self), []).append(torch.cat([z, c], 1))
            return super().forward(z, c, **kwargs)

    dataset = ToyImages(100, classes=4)
    A, B = Noting(c_dim=4).train(), Noting(c_dim=4)
    loads = dataset.loads
    compare_networks(["cov100_toy"], A, B, dataset, bootstrap=2)
    assert torch.equal(torch.cat(seen[id(A)]), torch.cat(seen[id(B)]))
    assert dataset.loads - loads < 400, "labels for two passes; the real images were looked at once"
    assert A.training


def test_a_family_that_cannot_be_resampled_has_no_error():
    found = compare_networks(["small_ppl2_wend"], ToyGenerator(), changed(0.5), ToyImages(50), bootstrap=5)
    assert found[0].errors == {}
    assert comparison_table(found).splitlines()[1].split()[-2:] == ["-", "-"]


# -- memorisation ------------------------------------------------------------------------------------------------------


class Copying(ToyGenerator):
    """Gives training pictures, slightly changed."""

    def __init__(self, training: ToyImages):
        super().__init__()
        self.pictures = training.images.float() / 127.5 - 1

    def synthesis(self, ws, noise_mode="random"):
        picked = (ws[:, 0].sum(1).abs() * 1000).long() % len(self.pictures)
        return self.pictures[picked] + 0.002 * torch.randn(len(picked), 3, 8, 8)


def test_memorisation_is_measured_against_pictures_not_trained_on():
    split = Split(ToyImages(200, seed=1, name="seen"), ToyImages(80, seed=2, name="unseen"))
    G, dataset = Copying(split.training), ToyImages(200, seed=1)
    (copies,) = compute_metrics(["mem100_toy"], G, dataset, split=split)
    assert copies.results["mem100_toy_share"] > 0.9
    assert copies.results["mem100_toy_ratio"] < 0.3
    assert copies.results["mem100_toy_p"] < 1e-9
    line = copies.to_json()
    assert (line["dataset"], line["num_real"]) == ("seen", 200)
    assert line["held_out"] == {"name": "unseen", "hash": split.held_out.content_hash(), "count": 80}
    detector = ToyDetector()
    sides = (GeneratorSource(G, dataset).images(0, 100), split.held_out.images)
    training, *features = (detector(x, [])["features"] for x in (split.training.images, *sides))
    expected = memorisation(*(nearest_distances(x, training) for x in features))
    assert copies.results == pytest.approx({f"mem100_toy_{k}": v for k, v in expected.items()}, rel=1e-3, abs=1e-12)
    (again,) = compute_metrics(["mem100_toy"], G, dataset, split=split)
    assert again.results == copies.results, "also from cached features"
    fresh = ToyImages(100, seed=3)
    (honest,) = compute_metrics(["mem100_toy"], None, dataset, images=fresh, split=split, bootstrap=20)
    assert honest.results["mem100_toy_p"] > 0.01
    assert honest.results["mem100_toy_share"] < 0.15
    assert honest.results["mem100_toy_ratio_std"] > 0


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (None, "needs pictures that the network was not trained on"),
        (Split(ToyImages(50), ToyImages(5, seed=1)), "needs at least 20 real images, toys has 5"),
        (Split(ToyImages(50), ToyImages(50)), "--held-out: toys is what the network was trained on"),
    ],
)
def test_memorisation_without_a_split(split, message):
    with pytest.raises(UserError, match=message):
        compute_metrics(["mem100_toy"], ToyGenerator(), ToyImages(50), split=split)


def test_a_run_does_not_measure_memorisation():
    with pytest.raises(UserError, match="calc_metrics.py measures it afterwards"):
        check_config(TrainingConfig(metrics=["mem1k_lite0"]))


# -- calc_metrics.py ---------------------------------------------------------------------------------------------------


def pictures(path: Path, count: int, seed: int = 0) -> Path:
    path.mkdir()
    for i, pixels in enumerate(ToyImages(count, seed=seed).images):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path / f"{i:03d}.png")
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    return pictures(tmp_path / "pictures", 60)


def network(path: Path, data: Path, seed: int, subset: int | None = None) -> Path:
    torch.manual_seed(seed)
    cfg = StyleGAN2Config(img_resolution=(8, 8), z_dim=8, w_dim=8, channel_base=64, channel_max=8)
    config = TrainingConfig()
    config.data.path, config.data.max_size = str(data), subset
    networks.save(path, {"G_ema": networks.build(cfg)}, training_config=config)
    return path


def call(*args: object):
    return CliRunner().invoke(calc_metrics.main, [str(a) for a in args])


def test_compare_on_the_command_line(tmp_path, folder):
    a, b = (network(tmp_path / f"{seed}.pkl", folder, seed) for seed in (1, 2))
    result = call("--metrics=kid50_toy,cov50_toy", "--compare", a, b, f"--outdir={tmp_path}", "--bootstrap=20")
    assert result.exit_code == 0, result.output
    said = result.output.splitlines()
    assert said[:2] == [f"A: {a}", f"B: {b}"]
    assert said[2].split("  ")[0] == "metric"
    assert [line.split()[0] for line in said[3:6]] == ["kid50_toy", "cov50_toy_density", "cov50_toy_coverage"]
    (line,) = [json.loads(text) for text in (tmp_path / "compare-kid50_toy.jsonl").read_text().splitlines()]
    assert line["networks"] == [str(a), str(b)]
    values = [one["kid50_toy"] for one in line["results"]]
    assert line["differences"]["kid50_toy"] == pytest.approx(values[1] - values[0])
    assert line["standard_errors"]["kid50_toy"] > 0
    assert (line["resamplings"], line["num_generated"], line["detector"]) == (20, 50, "toy")


def test_what_subset_left_out_is_held_out(tmp_path, folder):
    path = network(tmp_path / "net.pkl", folder, 1, subset=35)
    result = call("--metrics=mem50_toy", f"--network={path}", f"--outdir={tmp_path}")
    assert result.exit_code == 0, result.output
    line = json.loads((tmp_path / "metric-mem50_toy.jsonl").read_text())
    assert (line["num_real"], line["held_out"]["count"]) == (35, 25)
    seen = open_dataset(folder, max_size=35)
    assert line["dataset_hash"] == seen.content_hash()
    assert line["held_out"]["hash"] == seen.left_out().content_hash()


def test_the_left_out_images_are_the_others(folder):
    everything, seen = open_dataset(folder), open_dataset(folder, max_size=35, xflip=True)
    others = seen.left_out()
    assert (len(seen), len(others)) == (70, 25)
    known = {image.numpy().tobytes() for image in everything.load(range(60))[0]}
    parts = [{x.numpy().tobytes() for x in d.load(range(n))[0]} for d, n in ((seen, 35), (others, 25))]
    assert parts[0] | parts[1] == known
    assert not parts[0] & parts[1]
    assert np.array_equal(seen.load([0])[0], open_dataset(folder, max_size=35).load([0])[0])
    with pytest.raises(UserError, match="none is left out"):
        everything.left_out()


def test_held_out_pictures_of_another_place(tmp_path, folder):
    path, others = network(tmp_path / "net.pkl", folder, 1), pictures(tmp_path / "others", 30, seed=5)
    result = call("--metrics=mem50_toy", f"--network={path}", f"--held-out={others}", f"--outdir={tmp_path}")
    assert result.exit_code == 0, result.output
    line = json.loads((tmp_path / "metric-mem50_toy.jsonl").read_text())
    assert (line["num_real"], line["held_out"]["name"]) == (60, "others")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--metrics=kid50_toy", "--compare", "A", "B", "--network=A"], "give one of --network, --compare"),
        (["--metrics=kid50_toy", "--compare", "A", "B", "--bootstrap=0"], "a deviation wants 2 resamplings or more"),
        (["--metrics=kid50_toy", "--compare", "A", "C"], "were trained on different data; give --data=ZIP"),
        (["--metrics=kid50_toy", "--compare", "A"], "requires 2 arguments"),
        (["--metrics=mem50_toy", "--network=A"], "mem50_toy: which pictures were not trained on?"),
        (["--metrics=kid50_toy", "--network=A", "--held-out=OTHERS"], "none of these looks at it"),
        (["--metrics=mem50_toy", "--network=A", "--held-out=FOLDER"], "is what the network was trained on"),
        (
            ["--metrics=mem50_toy", "--compare", "A", "C", "--held-out=OTHERS", "--data=FOLDER"],
            "what is held out for one is not for the other",
        ),
    ],
)
def test_bad_input_is_one_line(tmp_path, folder, args, message):
    others = pictures(tmp_path / "others", 30, seed=5)
    a, b = (network(tmp_path / f"{seed}.pkl", folder, seed) for seed in (1, 2))
    places = {"A": a, "B": b, "C": network(tmp_path / "c.pkl", others, 3), "FOLDER": folder, "OTHERS": others}

    def placed(arg: str) -> str:
        option, equals, value = arg.rpartition("=")
        return f"{option}{equals}{places.get(value, value)}"

    result = call(*map(placed, args))
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.splitlines()) == 1
