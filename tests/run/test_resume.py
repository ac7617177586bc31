"""A run that was interrupted ends as if it hadn't been: the state, the folder, signals, killing, transfer."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.tiny_runs import EMOJI, everything, recipe, train_in, trainer

from dnnlib.config import set_field
from dnnlib.errors import UserError
from metrics import FamilyInfo, families, register_family
from training import networks
from training.run import checkpoint
from training.run.checkpoint import find_unfinished, load_state, save_state, start_from, thin_snapshots, write_config
from training.run.run_folder import RunFolder
from training.run.trackers import open_trackers
from training.step import health

ROOT = Path(__file__).parents[2]


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", ["ada", "bcr", "gat"])
def test_n_and_n_steps_equal_2n_steps(name, workers, tmp_path):
    """3 + 3 steps: the cut lies within an interval of ADA, R1 and path length. Bit for bit, with workers or without."""
    whole = trainer(recipe(name))
    for _ in range(6):
        whole.step()
    first = trainer(recipe(name, f"workers={workers}"))
    for _ in range(3):
        first.step()
    save_state(tmp_path, first.state())
    second = trainer(recipe(name, f"workers={workers}"))
    second.load_state(load_state(tmp_path))
    for _ in range(3):
        second.step()
    assert_equal(everything(whole), everything(second))
    a, b = whole.stats.take(), second.stats.take()
    assert a == b
    assert "Loss/scores/pair" in a if name == "gat" else "Loss/scores/real" in a


def test_half_a_state_is_noticed(tmp_path):
    """The comparison above can fail: without the optimisers' state the second half differs."""
    t = trainer(recipe("ada"))
    t.step()
    state = t.state()
    other = trainer(recipe("ada"))
    other.load_state(state | {"optimizers": {"G": {}, "D": {}}})
    t.step()
    other.step()
    mine, its = everything(t), everything(other)
    assert any(not torch.equal(mine[k], its[k]) for k in its)


def test_killed_runs_go_on(tmp_path):
    """SIGKILL at two seeded moments within a snapshot; see kill_runs.py."""
    kill_runs(tmp_path, seed=1, count=2)


def test_a_killed_pair_of_processes_goes_on(tmp_path):
    kill_runs(tmp_path, seed=1, count=1, processes=2)


@pytest.mark.soak
@pytest.mark.parametrize("processes", [1, 2])
def test_runs_killed_50_times_go_on(processes, tmp_path):
    kill_runs(tmp_path, seed=0, count=50, processes=processes)


def kill_runs(folder: Path, seed: int, count: int, processes: int = 1) -> None:
    command = [sys.executable, str(ROOT / "tests/support/scripts/kill_runs.py"), str(seed), str(count), str(folder)]
    command.append(str(processes))
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(", equal") == count


def command_line(outdir: Path, *more: str) -> list[str]:
    tiny = ["--cfg=cifar", f"--data={EMOJI}", "--metrics=none", "--batch=4", "--g_dict=8,8,8", "--num_layers=1,1,1"]
    sizes = ["G.depth=8", "G.w_dim=16", "G.z_dim=16", "D.channel_base=128", "D.channel_max=8"]
    options = ["--kimg=50", "--tick=0.02", "--snap=1000", *[f"--set={s}" for s in sizes]]
    return [sys.executable, "train.py", f"--outdir={outdir}", *tiny, *options, *more]


def run_until(process: subprocess.Popen, text: str) -> str:
    """Reads the process's output up to a line with `text`."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"{text!r} never came:\n{seen}")


def test_sigterm_saves_and_the_same_command_goes_on(tmp_path):
    for round_ in range(2):
        process = subprocess.Popen(
            command_line(tmp_path), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        seen = run_until(process, "tick 1 " if round_ == 0 else "training in")
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=60)[0]
        assert process.returncode == 0, rest
        assert "stopped by SIGTERM at kimg" in rest
        assert "the same command again, or: python train.py --resume=" in rest
        if round_ == 1:
            assert "continuing " in seen
    assert len(list(tmp_path.iterdir())) == 1, "both rounds are one run"
    lines = [json.loads(line) for line in next(tmp_path.glob("*/stats.jsonl")).read_text().splitlines()]
    assert [line["Progress/tick"]["mean"] for line in lines] == list(range(len(lines)))


def test_finds_the_run_to_continue(tmp_path):
    cfg = recipe("ada")
    folder = tmp_path / "00004-x"
    folder.mkdir()
    write_config(folder, cfg)
    assert find_unfinished(str(tmp_path), cfg) is None, "no state, nothing to go on from"
    save_state(folder, {"nimg": 8})
    assert find_unfinished(str(tmp_path), cfg) == folder
    assert find_unfinished(str(tmp_path / "missing"), cfg) is None
    assert find_unfinished(str(tmp_path), recipe("ada", "gpus=2")) == folder, "the same micro-batches"
    assert find_unfinished(str(tmp_path), recipe("ada", "seed=1")) is None
    newer = tmp_path / "00005-x"
    newer.mkdir()
    write_config(newer, cfg)
    save_state(newer, {"nimg": 24})
    assert find_unfinished(str(tmp_path), cfg) == folder, "the newer one is finished"
    (folder / "training-state.pt").write_bytes(b"PK\x03\x04 damaged")
    assert find_unfinished(str(tmp_path), cfg) is None


def test_a_damaged_or_missing_state_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no training-state.pt"):
        load_state(tmp_path)
    (tmp_path / "training-state.pt").write_bytes(os.urandom(100))
    with pytest.raises(UserError, match="damaged") as e:
        load_state(tmp_path)
    assert "\n" not in str(e.value)


def test_a_state_of_other_networks_is_refused():
    t = trainer(recipe("ada"))
    with pytest.raises(UserError, match="another network"):
        trainer(recipe("ada", "D.channel_max=4")).load_state(t.state())


def test_two_processes_cannot_train_in_one_folder(tmp_path):
    def other_process() -> int:
        pid = os.fork()
        if pid == 0:
            try:
                RunFolder(tmp_path)
            except UserError as e:
                os._exit(2 if "is being trained right now" in str(e) else 1)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    run = RunFolder(tmp_path)
    assert other_process() == 2
    run.close()
    assert other_process() == 0


def test_what_was_logged_after_the_state_comes_again(tmp_path):
    cfg = recipe("ada", "total_kimg=0.008")
    train_in(tmp_path, cfg)
    before = (tmp_path / "stats.jsonl").read_bytes()
    with open(tmp_path / "stats.jsonl", "ab") as f:
        f.write(b'{"lost": 1}\n{"cut of')
    (tmp_path / "metric-x.jsonl").write_bytes(b'{"results": {}, "snapshot_pkl": "a"}\n{"resul')
    (tmp_path / ".network-snapshot-000000.pkl.1.part").write_bytes(b"half")
    t = train_in(tmp_path, recipe("ada", "total_kimg=0.016"))
    after = (tmp_path / "stats.jsonl").read_bytes()
    assert after.startswith(before)
    assert b"lost" not in after
    assert t.nimg == 16
    assert (tmp_path / "metric-x.jsonl").read_bytes().count(b"\n") == 1
    assert not list(tmp_path.glob(".*.part"))


def test_metrics_that_a_kill_prevented_are_made_good(tmp_path, monkeypatch):
    measured = []
    cfg = recipe("ada", 'metrics=["kid2k_lite0"]', "total_kimg=0.008")

    def killed(self, names, snapshot):
        raise KeyboardInterrupt

    monkeypatch.setattr("training.session.Session._measure", killed)
    with pytest.raises(KeyboardInterrupt):
        train_in(tmp_path, cfg)
    monkeypatch.setattr("training.session.Session._measure", lambda s, *what: measured.append((s.trainer.nimg, *what)))
    train_in(tmp_path, cfg)
    assert measured[0] == (0, ["kid2k_lite0"], "network-snapshot-000000.pkl")
    assert [m[0] for m in measured] == [0, 8]


def test_transfer_copies_what_fits(tmp_path):
    old = trainer(recipe("ada", "G.g_dict=[8,8,16]"))
    path = tmp_path / "old.pkl"
    networks.save(path, {"G": old.G, "D": old.D, "G_ema": old.G_ema, "augment_pipe": old.augment})
    new = trainer(recipe("ada", "seed=5"))
    fresh = new.G.synthesis.b32_0.enc.q_weight.clone()
    line = start_from(str(path), {"G": new.G, "D": new.D, "G_ema": new.G_ema})
    assert torch.equal(new.G.mapping.fc0.weight, old.G.mapping.fc0.weight)
    assert torch.equal(new.D.b32.conv0.weight, old.D.b32.conv0.weight)
    assert torch.equal(new.G.synthesis.b32_0.enc.q_weight, fresh), "another shape: stays as initialised"
    assert "stay as initialised: G.synthesis.b16_0" in line
    assert "\n" not in line
    stranger = trainer(recipe("bcr"))
    with pytest.raises(UserError, match="none of its tensors"):
        start_from(str(path), {"D": stranger.D})


def test_every_known_source_is_a_pickle_of_nvidia():
    assert set(checkpoint.KNOWN_SOURCES) == {"ffhq256", "ffhq512", "ffhq1024", "celebahq256", "lsundog256"}
    assert all(
        url.startswith("https://nvlabs-fi-cdn") and url.endswith(".pkl") for url in checkpoint.KNOWN_SOURCES.values()
    )


def test_thinning_keeps_the_newest_and_the_best(tmp_path):
    for kimg in range(6):
        (tmp_path / f"network-snapshot-{kimg:06d}.pkl").touch()
    values = {"fid": [5, 1, 3, 3, 3, 3], "is": [9, 1, 1, 1, 1, 1]}
    for name, series in values.items():
        lines = [
            json.dumps({"results": {name: v}, "snapshot_pkl": f"network-snapshot-{i:06d}.pkl"})
            for i, v in enumerate(series)
        ]
        (tmp_path / f"metric-{name}.jsonl").write_text("\n".join(lines) + "\n")
    thin_snapshots(tmp_path, 2)
    kept = sorted(int(p.stem[-6:]) for p in tmp_path.glob("*.pkl"))
    assert kept == [0, 1, 4, 5]


@pytest.mark.parametrize(("larger", "best"), [(True, 1), (False, 0)])
def test_the_best_snapshot_by_a_plug_ins_metric_stays(tmp_path, monkeypatch, larger, best):
    monkeypatch.setattr(families, "FAMILIES", dict(families.FAMILIES))
    monkeypatch.setattr("metrics.names.FAMILIES", families.FAMILIES)
    compute = lambda metric, real, generated, device: {metric.name: 0.0}  # noqa: E731
    register_family("charm", FamilyInfo("features", "features", compute, larger_is_better=larger))
    for i, value in enumerate((1.0, 9.0, 5.0, 4.0)):
        name = f"network-snapshot-{i:06d}.pkl"
        (tmp_path / name).write_bytes(b"")
        line = {"results": {"charm1k_lite0": value}, "metric": "charm1k_lite0", "snapshot_pkl": name}
        with (tmp_path / "metric-charm1k_lite0.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
    thin_snapshots(tmp_path, 1)
    assert sorted(int(p.stem[-6:]) for p in tmp_path.glob("*.pkl")) == [best, 3]


def test_losses_that_stay_non_finite_end_the_run(monkeypatch):
    monkeypatch.setattr(health, "NONFINITE_STEPS", 3)
    t = trainer(recipe("ada"))
    t.health.last_good = "network-snapshot-000123.pkl"
    t.step()
    assert t.health.bad_steps == 0
    with torch.no_grad():
        t.D.b4.out.weight.fill_(float("nan"))
    for _ in range(3):
        t.step()
    with pytest.raises(UserError, match=r"at kimg 0.0\); the last good snapshot is network-snapshot-000123.pkl"):
        t.review()
    assert t.bad_gradients > 0
    assert all(p.isfinite().all() for p in t.G.parameters())


def test_warns_once_of_overfitting_and_collapse():
    cfg = recipe("ada")
    set_field(cfg, "ada.mode=noaug")
    h = health.Health()
    certainty = trainer(cfg).objective.certainty
    knows_all = certainty({"Loss/signs/real": {"mean": 0.99}, "Loss/signs/fake": {"mean": -0.99}})
    unsure = certainty({"Loss/signs/real": {"mean": 0.99}, "Loss/signs/fake": {"mean": -0.6}})
    told = [h.after_tick(sure, cfg, 0.0) for sure in [knows_all] * 4 + [unsure] + [knows_all] * 6]
    assert [i for i, text in enumerate(told) if text] == [9]
    assert "--aug=ada" in told[9]
    assert h.after_pictures(0.05, nimg=1000) is None, "young"
    assert "collapsed" in h.after_pictures(0.05, nimg=50_000)
    assert h.after_pictures(0.05, nimg=60_000) is None, "told already"
    assert health.diversity(torch.zeros(5, 3, 4, 4)) == 0


def test_wandb_offline_keeps_its_id_when_a_run_goes_on(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    cfg = recipe("ada", "wandb=styleloom-test")
    for nimg in (None, 8):
        trackers = open_trackers(cfg, tmp_path, nimg)
        for tracker in trackers:
            tracker.add({"Loss/G/loss": 0.5}, 8)
            tracker.close()
    runs = sorted((tmp_path / "wandb").glob("offline-run-*"))
    known = (tmp_path / "wandb-id.txt").read_text().strip()
    assert len(runs) in (1, 2), "both may start within one second"
    # Two folders of one second are told apart by a number at the end.
    assert all(re.fullmatch(rf"offline-run-\d+_\d+-{known}(-\d+)?", run.name) for run in runs)
    assert all(list(run.glob("*.wandb")) for run in runs)
    assert list(tmp_path.glob("events.out.tfevents.*"))
