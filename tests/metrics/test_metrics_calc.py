"""calc_metrics.py as a user calls it."""

import json
import sys

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from support.metric_toys import ToyImages

import calc_metrics
from metrics import families
from training import networks
from training.config import TrainingConfig
from training.networks.generators.stylegan2 import StyleGAN2Config

pytestmark = pytest.mark.usefixtures("toys")


@pytest.fixture
def folder(tmp_path):
    """A data set folder of 20 pictures of 8x8."""
    path = tmp_path / "pictures"
    path.mkdir()
    for i, pixels in enumerate(ToyImages(20).images):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path / f"{i:02d}.png")
    return path


@pytest.fixture
def snapshot(tmp_path, folder):
    """A network file in a run folder."""
    run = tmp_path / "00000-pictures"
    run.mkdir()
    (run / "training_options.json").write_text("{}")
    cfg = StyleGAN2Config(img_resolution=(8, 8), z_dim=8, w_dim=8, channel_base=64, channel_max=8)
    torch.manual_seed(0)
    path = run / "network-snapshot-000001.pkl"
    config = TrainingConfig()
    config.data.path, config.data.mirror = str(folder), True
    networks.save(path, {"G_ema": networks.build(cfg)}, training_config=config)
    return path


def call(*args):
    return CliRunner().invoke(calc_metrics.main, [str(a) for a in args])


def test_network_is_measured_on_its_own_data_and_the_run_folder_gets_a_line(snapshot):
    result = call("--metrics=kid1k_toy,small_fid50k", f"--network={snapshot}")
    assert result.exit_code == 0, result.output
    assert "kid1k_toy" in result.output
    line = json.loads((snapshot.parent / "metric-kid1k_toy.jsonl").read_text())
    assert line["snapshot_pkl"] == snapshot.name
    assert line["num_real"] == 20
    assert json.loads((snapshot.parent / "metric-small_fid50k.jsonl").read_text())["num_real"] == 40


def test_official_files_tell_their_data_too():
    network = {"training_config": None, "training_set_kwargs": {"path": "cifar10.zip", "xflip": True, "max_size": 9}}
    assert calc_metrics.training_data(network) == calc_metrics.TrainingData("cifar10.zip", True)
    assert calc_metrics.training_data({}) == calc_metrics.TrainingData(None, False)


def test_other_data_and_no_mirror(snapshot, folder, tmp_path):
    args = ("--metrics=small_fid50k", f"--network={snapshot}", f"--data={folder}", "--mirror=0", f"--outdir={tmp_path}")
    result = call(*args)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "metric-small_fid50k.jsonl").read_text())["num_real"] == 20
    assert not list(snapshot.parent.glob("metric-*"))


def test_baseline_and_spread(folder):
    result = call("--metrics=kid1k_toy", f"--data={folder}", "--baseline=mean", "--bootstrap=5")
    assert result.exit_code == 0, result.output
    assert "kid1k_toy_std" in result.output


PLUGIN = """
import torch
from metrics import FamilyInfo, register_family
from metrics.detectors import DetectorInfo, register_detector
from metrics.detectors.resize import resize

class MyNetwork(torch.nn.Module):
    def __init__(self, path, resize_mode):
        super().__init__()
        self.scale = float(path.read_text())
        self.resize_mode = resize_mode

    def forward(self, images, outputs):
        return {"features": resize(images.float(), 4, self.resize_mode).flatten(1) * self.scale}

register_detector(DetectorInfo(
    name="mine", version="1", outputs=("features",), input_size=4, resize_mode="clean_bicubic",
    licence="MIT", source="my training run", file_name="mine.txt", file_mb=1,
    build=lambda path, resize_mode: MyNetwork(path, resize_mode or "clean_bicubic"),
))

def shift(metric, real, generated, device):
    return {metric.name: float((real.mean - generated.mean).abs().mean())}

register_family("shift", FamilyInfo("moments", "moments", shift, fewest=2))
"""


def test_plug_ins_of_the_users_own(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    (tmp_path / "my_plugins.py").write_text(PLUGIN)
    (tmp_path / "weights").write_text("0.5")
    try:
        result = call(
            "--metrics=shift1k_mine,kid1k_mine",
            f"--data={folder}",
            "--baseline=mean",
            f"--import={tmp_path}/my_plugins.py",
            f"--detector=mine={tmp_path}/weights",
            f"--outdir={tmp_path}",
        )
    finally:
        families.FAMILIES.pop("shift", None)
    assert result.exit_code == 0, result.output
    line = json.loads((tmp_path / "metric-shift1k_mine.jsonl").read_text())
    assert 0 <= line["results"]["shift1k_mine"] < 0.5  # the mean image has the set's mean, up to rounding


def test_list():
    assert call("--metrics=list").output.splitlines()[0] == "fid50k_full"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--metrics=fod50"], "unknown metric 'fod50'"),
        (["--metrics=kid1k_toy", "--data=FOLDER"], "give one of --network, --compare, --images and --baseline"),
        (["--metrics=kid1k_toy", "--baseline=mean"], "--data=ZIP is needed"),
        (["--metrics=kid1k_toy", "--baseline=mean", "--data=nowhere.zip"], "there is no data set at nowhere.zip"),
        (["--metrics=kid1k_toy", "--network=nowhere.pkl"], "nowhere.pkl does not exist"),
        (["--metrics=kid1k_toy", "--images=FOLDER", "--data=FOLDER"], "needs 1000 generated images, pictures has 20"),
        (["--metrics=kid1k_toy", "--baseline=mean", "--data=FOLDER", "--detector=x.pth"], "say which detector"),
        (["--metrics=kid1k_toy", "--baseline=mean", "--data=FOLDER", "--outdir=nowhere"], "nowhere is no folder"),
        (["--metrics=kid1k_broken", "--baseline=mean", "--data=FOLDER"], "non-finite features"),
    ],
)
def test_bad_input_is_one_line_and_status_2(args, message, folder, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    result = call(*(arg.replace("FOLDER", str(folder)) for arg in args))
    assert result.exit_code == 2
    assert message in result.output
    assert result.output.startswith("Error: ")
    assert len(result.output.splitlines()) == 1
    assert [p for p in sorted(tmp_path.rglob("*")) if p not in before and "cache" not in p.parts] == []


@pytest.mark.parametrize("cut", [20, 100])
def test_a_broken_picture_is_named(cut, folder, tmp_path):
    """Within its header or only when it is decoded, among the generated pictures or the real ones."""
    made = tmp_path / "made"
    made.mkdir()
    for i, pixels in enumerate(ToyImages(1000).images):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(made / f"{i:04d}.png")
    whole = (made / "0700.png").read_bytes()
    (made / "0700.png").write_bytes(whole[:cut])
    result = call("--metrics=kid1k_toy", f"--images={made}", f"--data={folder}")
    assert (result.exit_code, result.output.count("\n")) == (2, 1), result.output
    assert result.output.startswith(f"Error: {made}: 0700.png can't be read (")
    (made / "0700.png").write_bytes(whole)
    (folder / "07.png").write_bytes(whole[:cut])
    result = call("--metrics=kid1k_toy", f"--images={made}", f"--data={folder}")
    assert (result.exit_code, result.output.count("\n")) == (2, 1), result.output
    assert result.output.startswith(f"Error: {folder}: 07.png can't be read (")


def test_error_in_one_of_several_processes_is_one_line(tmp_path):
    result = call("--metrics=kid1k_lite0", f"--network={tmp_path}/nowhere.pkl", "--gpus=2")
    assert result.exit_code == 2
    assert result.output.splitlines()[-1].startswith("Error: network file")
    assert result.output.splitlines()[-1].endswith("nowhere.pkl does not exist")
