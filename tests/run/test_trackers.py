"""Where figures and grids go: TensorBoard, Weights & Biases, trackers of one's own."""

import io
import re

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from support.docs.pages import ROOT, read_page
from support.tiny_runs import recipe

import train
from dnnlib.errors import UserError
from training.launch import Place, launch
from training.run import trackers


class Own:
    """Notes what it is told."""

    def __init__(self, cfg, folder, nimg):
        self.told = []
        Own.made.append((self, nimg))

    def add(self, values, nimg):
        self.told.append(("figures", nimg, set(values)))

    def add_picture(self, name, path, nimg):
        self.told.append((name, nimg, Image.open(path).size))

    def close(self):
        self.told.append("closed")


class Failing(Own):
    def add_picture(self, name, path, nimg):
        raise RuntimeError("no luck today")


@pytest.fixture
def own(monkeypatch):
    monkeypatch.setattr(trackers, "_own", {})
    Own.made = []
    trackers.register_tracker("own", Own)
    trackers.register_tracker("failing", Failing)
    return Own.made


def run_with(tmp_path, *settings):
    launch(recipe("ada", "total_kimg=0.016", *settings), Place(str(tmp_path), "tiny"))
    (folder,) = tmp_path.iterdir()
    return folder


def test_pictures_reach_every_tracker(own, tmp_path):
    folder = run_with(tmp_path, 'trackers=["own"]')
    ((tracker, nimg),) = own
    assert nimg is None
    pictures = [entry for entry in tracker.told if entry[0].startswith("Samples")]
    assert [(name, n) for name, n, _ in pictures][:2] == [("Samples/reals", 0), ("Samples/fakes", 0)]
    assert len(pictures) > 2
    assert {size for *_, size in pictures} == {Image.open(folder / "reals.png").size}
    assert any(e[0] == "figures" and "Loss/G/loss" in e[2] for e in tracker.told)
    assert tracker.told[-1] == "closed"


def test_one_that_fails_is_given_up_and_the_run_goes_on(own, tmp_path):
    folder = run_with(tmp_path, 'trackers=["failing", "own"]')
    assert "nothing more is reported to Failing: no luck today" in (folder / "log.txt").read_text()
    assert own[1][0].told[-1] == "closed"
    assert len(own[1][0].told) > 3


def test_grids_are_in_tensorboards_events(own, tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = run_with(tmp_path)
    found = events.EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    assert set(found.Tags()["images"]) == {"Samples/reals", "Samples/fakes"}
    shown = Image.open(io.BytesIO(found.Images("Samples/reals")[0].encoded_image_string))
    assert np.array_equal(np.asarray(shown), np.asarray(Image.open(folder / "reals.png")))


def test_names_that_nothing_registers_are_refused(own, tmp_path):
    done = CliRunner().invoke(train.main, ["--cfg=demo", "--track=nothing", f"--outdir={tmp_path}", "--gpus=1"])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "--track=nothing: there is no such tracker; known are own, failing" in done.stderr
    with pytest.raises(ValueError, match="two trackers"):
        trackers.register_tracker("own", Own)
    assert not list(tmp_path.iterdir())


def test_one_that_does_not_open_is_one_line(own, tmp_path):
    def fails(cfg, folder, nimg):
        raise RuntimeError("no\nserver")

    trackers.register_tracker("closed", fails)
    with pytest.raises(UserError, match="^--track=closed: RuntimeError: no server$"):
        run_with(tmp_path, 'trackers=["closed"]')


def test_the_page_shows_mlflow(own, tmp_path, monkeypatch):
    """The page's file against MLflow where it is installed, else against what it calls."""
    (text,) = [b.text for b in read_page(ROOT / "docs" / "extending.md").blocks if "class MLflow" in b.text]
    exec(text, {"__name__": "mlflow_tracker"})
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    run_with(tmp_path / "runs", 'trackers=["mlflow"]')
    (metric,) = (tmp_path / "store").rglob("metrics/Loss/G/loss")
    assert re.fullmatch(r"\d+ [\d.e-]+ \d+", metric.read_text().splitlines()[0])
    assert list((tmp_path / "store").rglob("artifacts/Samples/fakes/fakes_init.png"))
