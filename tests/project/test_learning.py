"""benchmarks/learning.py: equal time for each candidate, every run once, a line per measurement."""

import json

import pytest
from click.testing import CliRunner
from support.dataset_samples import dataset_zip, pictures

from benchmarks import learning
from training import networks

TINY = (
    "G.g_dict=[8] G.num_layers=[1] G.depth=8 G.w_dim=16 G.z_dim=16 "
    "D.channel_base=128 D.channel_max=8 D.mbstd_group_size=4 batch=4"
)
CANDIDATES = f"""
# name, preset, settings
plain  demo_l  data.path=DATA {TINY}
ramp   demo_l  data.path=DATA {TINY} G_opt.lr={{"start":0.1,"end":0,"kimg":{{kimg}}}}  # falls to 0 by the end
"""


@pytest.fixture
def results(tmp_path, monkeypatch, toys):
    monkeypatch.setattr(learning, "FIGURES", {"kid100_toy": "kid100_toy", "cov100_toy": "cov100_toy_coverage"})
    monkeypatch.setattr(learning, "affordable_kimg", lambda candidate, minutes: 0.016)
    data = dataset_zip(tmp_path / "data.zip", pictures(20, 8, 8))
    (tmp_path / "candidates.txt").write_text(CANDIDATES.replace("DATA", str(data)))
    return tmp_path / "results.jsonl"


def run(results, *more):
    file = results.with_name("candidates.txt")
    return CliRunner().invoke(learning.main, [str(file), "--seeds=0,1", "--points=2", f"--out={results}", *more])


def test_every_run_is_measured_along_the_way_and_done_once(results):
    first = run(results, "--only=plain")
    assert first.exit_code == 0, first.output
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert [(r["name"], r["seed"], r["kimg"]) for r in rows] == [
        ("plain", s, k) for s in (0, 1) for k in (0.008, 0.016)
    ]
    assert all({"kid100_toy", "cov100_toy_coverage", "minutes"} <= r.keys() for r in rows)
    assert rows[1]["kid100_toy"] != rows[3]["kid100_toy"], "the seed matters"
    assert "plain                    2 seeds" in first.output
    again = run(results)
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert [r["name"] for r in rows] == ["plain"] * 4 + ["ramp"] * 4
    assert again.output.count("2 seeds") == 2
    config = networks.load(results.with_name("ramp-1.pkl"))["training_config"]
    assert (config["G_opt"]["lr"]["kimg"], config["seed"]) == (0.016, 1)


def test_what_is_no_candidate_is_one_line(results):
    results.with_name("candidates.txt").write_text("# nothing\nalone\n")
    done = run(results)
    assert done.exit_code == 2
    assert "line 2: a candidate is a name, a preset and settings" in done.output


def test_the_trial_measures_what_the_time_buys(tmp_path, monkeypatch):
    """At a thousandth of the time, a thousandth of the images."""
    monkeypatch.setattr(learning, "TRIAL_STEPS", 2)
    data = dataset_zip(tmp_path / "data.zip", pictures(20, 8, 8))
    clock = iter([0.0, 3.0] * 2)
    monkeypatch.setattr(learning.time, "process_time", lambda: next(clock))
    candidate = learning.Candidate("plain", "demo_l", (f"data.path={data}", *TINY.split()))
    kimg = [learning.affordable_kimg(candidate, minutes) for minutes in (10, 0.01)]
    assert kimg == pytest.approx([600 / 3 * 2 * 4 / 1000, 0.6 / 3 * 2 * 4 / 1000])
