"""report.html: complete, self-contained, and right about the run."""

import base64
import io
import json
import math
import re
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from support.tiny_runs import recipe

from training.run.checkpoint import write_config
from training.run.report.charts import MAX_HOVER, MAX_POINTS, Axis, Series, chart, condensed, number, round_up
from training.run.report.page import STRIPS, page, write_report
from training.run.report.style import STYLE
from training.run.starts import note_start

VOID = {"meta", "img", "path", "circle"}


class Checker(HTMLParser):
    """Tags must nest; notes whatever the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.loaded += [v for k, v in attrs if k in ("src", "href", "srcset", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in VOID

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def parsed(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    return checker


@pytest.fixture
def run(tmp_path) -> Path:
    folder = tmp_path / "00001-a<b&c"
    folder.mkdir()
    write_config(folder, recipe("ada"))
    for kimg in range(30):
        Image.new("RGB", (16 * 32, 10 * 32), (kimg * 8, 0, 0)).save(folder / f"fakes{kimg:06d}.png")
    Image.new("RGB", (16 * 32, 10 * 32), (0, 255, 0)).save(folder / "reals.png")
    with open(folder / "stats.jsonl", "w") as f:
        for tick in range(5):
            loss = math.nan if tick == 2 else 1 / (tick + 1)
            line = {"Progress/kimg": tick * 4.0, "Loss/G/loss": loss, "Progress/augment": 0.1 * tick}
            line |= {"Timing/total_sec": 100.0 * tick, "Timing/sec_per_kimg": 25.0 * bool(tick)}
            f.write(json.dumps({k: {"num": 1, "mean": v, "std": 0} for k, v in line.items()} | {"timestamp": 0}) + "\n")
        f.write('{"cut')
    return folder


def add_metrics(folder: Path) -> None:
    with open(folder / "metric-fid50k_full.jsonl", "w") as f:
        for i, value in enumerate([300, 20, 2.5, 4]):
            line = {"results": {"fid50k_full": value}, "snapshot_pkl": f"network-snapshot-{i * 4:06d}.pkl"}
            f.write(json.dumps(line) + "\n")


def test_a_run_without_metrics(run):
    write_report(run)
    found = parsed((run / "report.html").read_text())
    assert "Metrics" not in found.text
    assert "00001-a<b&c" in found.text, "escaped and back"
    assert "16 kimg" in found.text
    assert "40 img/s" in found.text
    assert "nan" not in (run / "report.html").read_text().lower().replace("roboto", "")


def test_a_run_with_metrics_names_the_best(run):
    add_metrics(run)
    text = page(run)
    found = parsed(text)
    assert "Best fid50k_full" in found.text
    assert "2.5" in found.text
    assert "Smaller is better." in found.text


def test_final_figures_are_those_of_the_newest_network_beside_the_baselines(run):
    add_metrics(run)
    with open(run / "metric-fid50k_full.jsonl", "a") as f:
        f.write(json.dumps({"results": {"fid50k_full": 1.25}, "snapshot_pkl": None, "generated": "PCAGaussian"}) + "\n")
    found = page(run).partition("Final figures")[2].partition("</table>")[0]
    assert re.findall(r"<th>(.*?)</th>", found) == ["", "network-snapshot-000012.pkl", "PCAGaussian"]
    assert re.findall(r"<td>(.*?)</td>", found) == ["fid50k_full", "4", "1.25"]
    assert "<b>1.25</b>" not in page(run), "a baseline is not the run's best"


def test_a_metric_that_was_measured_once_has_no_curve(run):
    add_metrics(run)
    with open(run / "metric-cov2k_lite0.jsonl", "w") as f:
        results = {"cov2k_lite0_density": 0.5, "cov2k_lite0_coverage": 0.25}
        f.write(json.dumps({"results": results, "snapshot_pkl": "network-snapshot-000012.pkl"}) + "\n")
    text = page(run)
    assert re.findall(r"<h3>(.*?)</h3>", text)[0] == "fid50k_full"
    assert "<h3>cov2k_lite0</h3>" not in text
    assert "<td>cov2k_lite0_coverage</td><td>0.25</td>" in text
    assert "Best cov2k_lite0_density" in text


def test_the_page_says_how_the_run_was_started(run, monkeypatch):
    assert "Commands" not in page(run)
    monkeypatch.setattr(sys, "argv", ["train.py", "--cfg=<b>", "--set", "a b"])
    monkeypatch.setattr(time, "strftime", lambda form: "then")
    note_start(run)
    monkeypatch.setattr(time, "strftime", lambda form: "later")
    monkeypatch.setattr(sys, "argv", ["/usr/bin/styleloom", "train", "--seed=1"])
    note_start(run)
    found = parsed(page(run))
    assert "python train.py '--cfg=<b>' --set 'a b' (commit " in found.text
    assert "styleloom train --seed=1 (" in found.text
    assert "/usr/bin" not in found.text


@pytest.mark.parametrize(("mode", "shown"), [("ada", True), ("fixed", False), ("noaug", False)])
def test_charts_of_ada_where_there_is_ada(run, mode, shown):
    write_config(run, recipe("ada", f"ada.mode={mode}"))
    assert ("Augmentation probability p" in page(run)) == shown


def test_points_say_their_values_under_the_pointer():
    svg = chart("<t>", [Series("a", [(i, 2.0 * i) for i in range(1, 101)])], note="1 < 2")
    texts = re.findall(r"<title>(.*?)</title>", svg)
    assert 40 <= len(texts) <= MAX_HOVER
    assert texts[-1] == "a: 200 at 100 kimg"
    assert "<h3>&lt;t&gt;</h3>" in svg
    assert "1 &lt; 2" in svg


def test_a_lone_chart_keeps_its_column():
    """auto-fit would blow it up to the page's width."""
    assert ".charts { display: grid; grid-template-columns: repeat(auto-fill" in STYLE


def test_the_page_loads_nothing(run):
    add_metrics(run)
    text = page(run)
    found = parsed(text)
    assert all(source.startswith("data:image/") for source in found.loaded)
    assert not re.search(r"https?://|@import|url\(|<script|<link", text)


def test_strips_are_spread_over_the_run(run):
    images = [source for source in parsed(page(run)).loaded if source.startswith("data:")]
    assert len(images) == STRIPS + 1
    reds = []
    for source in images[1:]:
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as strip:
            assert strip.size == (8 * 32, 32)
            reds.append(strip.getpixel((0, 0))[0])
    assert reds[0] == 0
    assert reds[-1] == 29 * 8
    assert reds == sorted(reds)


def test_an_empty_run_has_a_page(tmp_path):
    write_config(tmp_path, recipe("ada"))
    found = parsed(page(tmp_path))
    assert "Settings" in found.text
    assert "Samples" not in found.text


def test_settings_show_every_field(run):
    text = parsed(page(run)).text
    for name in ("kimg_per_tick", "pipe.xflip", "conv_clamp", "r1_gamma", "half_life_kimg"):
        assert name in text


def test_lines_stay_inside_their_chart():
    svg = chart("t", [Series("a", [(0, -5.0), (1, 7.0), (2, math.inf), (3, 1.0)])])
    ys = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", svg)]
    assert len(ys) >= 3
    assert all(0 <= y <= 250 for y in ys)
    assert chart("t", [Series("a", [(0, math.nan)])]) == ""


def test_long_series_are_averaged():
    points = condensed([(float(i), float(i)) for i in range(10_000)])
    assert len(points) <= MAX_POINTS
    assert points[0] == (16.5, 16.5)


@pytest.mark.parametrize(
    ("low", "high", "is_log"), [(0, 1, False), (-3, 8, False), (0.002, 0.0031, False), (2, 300, True)]
)
def test_axes_have_round_ticks_within(low, high, is_log):
    axis = Axis(low, high, 0, 100, is_log)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 9
    assert all(-1e-6 <= axis.place(t) <= 100 + 1e-6 for t in ticks)


def test_numbers_are_short():
    assert [number(v) for v in (0, 12400, 3.14159, 0.00021, 1e-7, -0.5)] == [
        "0",
        "12,400",
        "3.14",
        "0.00021",
        "1.0e-07",
        "-0.5",
    ]
    assert [round_up(v) for v in (0.3, 1, 2.1, 7, 60)] == [0.5, 1, 2.5, 10, 100]
