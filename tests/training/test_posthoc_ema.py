"""Post-hoc EMA: the profiles, the combination of stored averages, what a run keeps, and the command."""

import copy
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.integrate import quad
from support.small_generators import small_generator
from support.tiny_runs import EMOJI, everything, recipe, train_in, trainer

import calc_metrics
import generate
from dnnlib.errors import UserError
from training import networks
from training.ema import posthoc, power
from training.ema.averages import PowerAverages
from training.ema.power import Profile, coefficients, decay, exponent, inner_product
from training.networks.__main__ import main
from training.options import OPTIONS, check_config, resolve
from training.run.checkpoint import thin_snapshots

ROOT = Path(__file__).parents[2]
KEPT = "ema.posthoc=[0.05,0.1]"


def density(profile: Profile, tau: np.ndarray | float) -> np.ndarray | float:
    """The profile as the paper writes it (eq. 2)."""
    g = exponent(profile.length)
    return np.where(np.asarray(tau) <= profile.end, (g + 1) / profile.end ** (g + 1) * np.asarray(tau) ** g, 0.0)


@pytest.mark.parametrize("length", [0.01, 0.05, 0.1, 0.25])
def test_the_length_is_the_deviation_of_the_profile(length):
    moments = [quad(lambda tau, n=n: tau**n * density(Profile(length, 1.0), tau), 0, 1)[0] for n in (0, 1, 2)]
    assert moments[0] == pytest.approx(1, rel=1e-9)
    assert np.sqrt(moments[2] - moments[1] ** 2) == pytest.approx(length, rel=1e-6)


def test_known_exponents():
    """Figure 3 of the paper and its text: sigma_rel 0.05 and 0.10 are gamma 16.97 and 6.94."""
    assert exponent(0.05) == pytest.approx(16.97, abs=0.005)
    assert exponent(0.10) == pytest.approx(6.94, abs=0.005)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (Profile(0.05, 1.0), Profile(0.1, 1.0)),
        (Profile(0.05, 0.4), Profile(0.1, 1.0)),
        (Profile(0.2, 1.0), Profile(0.1, 0.7)),
    ],
)
def test_inner_products_against_integration(a, b):
    end = min(a.end, b.end)
    numeric = quad(lambda tau: density(a, tau) * density(b, tau), 0, end, epsabs=0, epsrel=1e-10)[0]
    assert inner_product(a, b) == pytest.approx(numeric, rel=1e-9)


@pytest.mark.parametrize("length", [0.03, 0.07, 0.15, 0.25])
def test_coefficients_against_least_squares_on_a_grid(length):
    """The profiles at 200,000 points in float64, the condition eliminated by hand."""
    stored = [Profile(s, t) for t in (250, 500, 750, 1000) for s in (0.05, 0.1)]
    wanted = Profile(length, 1000)
    tau = (np.arange(200_000) + 0.5) / 200
    columns = np.stack([density(p, tau) for p in stored], 1)
    aim = density(wanted, tau)
    free = np.linalg.lstsq(columns[:, :-1] - columns[:, -1:], aim - columns[:, -1], rcond=None)[0]
    expected = np.append(free, 1 - free.sum())
    x, misfit = coefficients(stored, wanted)
    assert x == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert x.sum() == pytest.approx(1, abs=1e-12)
    assert misfit == pytest.approx(np.linalg.norm(columns @ expected - aim) / np.linalg.norm(aim), rel=1e-3)


def test_a_stored_average_is_itself_and_more_of_them_are_better():
    many = [[Profile(s, t) for t in range(1, n + 1) for s in (0.05, 0.1)] for n in (4, 8, 32)]
    x, misfit = coefficients(many[0], Profile(0.1, 4))
    assert x.tolist() == [0] * 7 + [1]
    assert misfit == 0
    errors = [coefficients(stored, Profile(0.15, stored[-1].end))[1] for stored in many]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.005


def test_steps_of_an_average_are_the_integral_of_its_profile():
    """Of weights that are constant within each step, whose sizes differ."""
    ends = np.cumsum([4, 4, 8, 2, 2, 16, 4])
    values = np.random.RandomState(0).randn(len(ends))
    average, before = 100.0, 0
    for end, value in zip(ends, values):
        beta = decay(0.1, before, end)
        average, before = beta * average + (1 - beta) * value, end
    starts = [0, *ends[:-1]]
    profile = Profile(0.1, float(ends[-1]))
    parts = [quad(lambda tau: density(profile, tau), a, b)[0] * v for a, b, v in zip(starts, ends, values)]
    assert average == pytest.approx(sum(parts), rel=1e-9)


# -- what is stored, and computed from it -----------------------------------------------------------------------------


def drifting_run(folder: Path, steps: int, every: int, lengths: tuple[float, ...]) -> dict[float, torch.nn.Module]:
    """A generator whose weights walk at random and drift; averages of the first two lengths are stored, those of the
    others come back beside them."""
    G = small_generator()
    averages = PowerAverages(G, lengths)
    generator = torch.Generator().manual_seed(0)
    moved = [*G.parameters(), G.mapping.w_avg]
    for step in range(steps):
        for tensor in moved:
            tensor += 0.01 * torch.randn(tensor.shape, generator=generator) + 0.5 / steps
        averages.update(G, 10 * step, 10 * (step + 1))
        if (step + 1) % every == 0:
            for length in lengths[:2]:
                about = {"kimg": (step + 1) / 100, "nimg": 10 * (step + 1), "ema_length": length}
                name = posthoc.average_name(length, 10 * (step + 1))
                networks.save(folder / name, {"G_ema": averages.modules[length]}, provenance=about)
    return averages.modules


def test_a_reconstruction_is_the_average_that_training_would_have_kept(tmp_path):
    true = drifting_run(tmp_path, steps=300, every=15, lengths=(0.05, 0.1, 0.07, 0.15))
    walk = small_generator().state_dict()
    for length in (0.07, 0.15):
        found = posthoc.reconstruct(tmp_path, length).content.networks["G_ema"].tensors
        expected = true[length].state_dict()
        near = true[0.1].state_dict()
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            if torch.equal(value, walk[name]):
                assert torch.allclose(found[name], value, rtol=1e-6), f"{name} is a constant"
                continue
            error = (found[name] - value).norm()
            assert error <= 0.02 * (walk[name] - value).norm(), f"{name}: of the way since the start"
            assert error <= 0.05 * (near[name] - value).norm(), f"{name}: of the distance to the nearest stored one"
    exact = posthoc.reconstruct(tmp_path, 0.1).content.networks["G_ema"].tensors
    assert all(torch.equal(exact[name], value) for name, value in true[0.1].state_dict().items())


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A tiny run of six steps that stores averages after every one of four images."""
    folder = tmp_path_factory.mktemp("runs") / "00000-tiny"
    train_in(folder, recipe("ada", KEPT, "ema.posthoc_kimg=0.004", "keep_snapshots=1"))
    return folder


def test_the_command_as_a_process_and_what_takes_its_file(run, tmp_path):
    out = tmp_path / "ema-0.15.pkl"
    command = [sys.executable, "-m", "training.networks", "ema", str(run), "--length=0.15", f"--out={out}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "length 0.15 at kimg 0.0 from 12 averages; its profile is met within" in done.stdout
    loaded = networks.load(out)
    assert loaded["provenance"]["ema_length"] == 0.15
    assert [name for name in ("G", "D", "G_ema") if loaded[name] is not None] == ["G_ema"]
    pictures = CliRunner().invoke(generate.main, [f"--network={out}", "--seeds=0-1", f"--outdir={tmp_path / 'out'}"])
    assert pictures.exit_code == 0, pictures.output
    assert len(list((tmp_path / "out").glob("*.png"))) == 2
    measured = CliRunner().invoke(calc_metrics.main, [f"--network={out}", "--metrics=kid10_lite0", "--verbose=0"])
    assert measured.exit_code == 0, measured.output
    assert "kid10_lite0" in measured.output


def test_an_earlier_end(run, tmp_path):
    made = posthoc.reconstruct(run, 0.07, kimg=0.012)
    assert made.count == 6
    assert made.content.provenance["kimg"] == 0.012
    assert made.content.training_config["ema"]["posthoc"] == [0.05, 0.1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--length=0.3"], "lengths (sigma_rel) lie from 0.01 to 0.25"),
        (["--length=nan"], "not a finite number"),
        (["--length=0.1", "--kimg=7"], "--kimg=7: no averages were stored there; near it they were at 0.012, 0.016"),
        (["--length=0.1", "--out=x.onnx"], "a network file ends in .pkl or .safetensors"),
    ],
)
def test_bad_input_is_one_line(run, tmp_path, options, message):
    result = CliRunner().invoke(main, ["ema", str(run), f"--out={tmp_path / 'x.pkl'}", *options])
    assert result.exit_code == 2
    assert message in result.output
    assert result.output.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_files_that_do_not_go_together(run, tmp_path):
    with pytest.raises(UserError, match="holds no averages"):
        posthoc.reconstruct(tmp_path, 0.1)
    copied = shutil.copytree(run, tmp_path / "run")
    last = copied / "ema-0.05-000000024.safetensors"
    shutil.copy(last, copied / "ema-0.05-000000028.safetensors")
    with pytest.raises(UserError, match="as its name says"):
        posthoc.reconstruct(copied, 0.05)
    (copied / "ema-0.05-000000028.safetensors").unlink()
    about = {"nimg": 24, "ema_length": 0.05}
    networks.save(last, {"G_ema": small_generator()}, provenance=about)
    with pytest.raises(UserError, match="of another network than"):
        posthoc.reconstruct(copied, 0.07)
    last.write_bytes(last.read_bytes()[:-5])
    with pytest.raises(UserError, match="damaged"):
        posthoc.reconstruct(copied, 0.07)


def test_thinning_leaves_averages_and_does_not_count_reconstructions(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    (copied / "mine.pkl").touch()
    for name in ("network-snapshot-000001.pkl", "network-snapshot-000002.pkl", "network-snapshot-000003.pkl"):
        (copied / name).touch()
    values = {"mine.pkl": 0.1, "network-snapshot-000001.pkl": 0.2, "network-snapshot-000002.pkl": 0.3}
    lines = [f'{{"results": {{"fid": {v}}}, "snapshot_pkl": "{name}"}}\n' for name, v in values.items()]
    (copied / "metric-fid.jsonl").write_text("".join(lines))
    thin_snapshots(copied, 1)
    assert {p.name for p in copied.glob("*.pkl")} == {
        "mine.pkl", "network-snapshot-000001.pkl", "network-snapshot-000003.pkl"
    }  # fmt: skip
    assert posthoc.reconstruct(copied, 0.07).count == 12


# -- training ---------------------------------------------------------------------------------------------------------


def test_resumed_runs_store_the_same_bits(run, tmp_path):
    """3 + 3 steps in two runs of the folder; an average of later than the state is made anew."""
    folder = tmp_path / "00000-tiny"
    train_in(folder, recipe("ada", KEPT, "ema.posthoc_kimg=0.004", "total_kimg=0.012"))
    (folder / "ema-0.05-000000020.safetensors").write_bytes(b"of a future that has not come")
    train_in(folder, recipe("ada", KEPT, "ema.posthoc_kimg=0.004", "total_kimg=0.016"))
    assert not (folder / "ema-0.05-000000020.safetensors").exists()
    t = train_in(folder, recipe("ada", KEPT, "ema.posthoc_kimg=0.004", "keep_snapshots=1"))
    names = sorted(path.name for path in posthoc.stored_averages(run))
    assert names == sorted(path.name for path in posthoc.stored_averages(folder))
    assert len(names) == 12
    for name in names:
        ours, theirs = (networks.files.read(place / name).networks["G_ema"].tensors for place in (run, folder))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
    assert "state.averages.0.05.mapping.w_avg" in everything(t)


def test_averages_follow_the_weights():
    """A trainer's averages against the formula in float64; they change nothing else of the training."""
    t, plain = trainer(recipe("ada", KEPT)), trainer(recipe("ada"))
    gamma = exponent(0.1)
    expected = None
    for step in range(1, 5):
        t.step()
        plain.step()
        now = {name: p.double().clone() for name, p in t.G.state_dict().items()}
        beta = (1 - 1 / step) ** (gamma + 1)
        expected = now if expected is None else {n: beta * expected[n] + (1 - beta) * v for n, v in now.items()}
    found = t.averages.modules[0.1].state_dict()
    for name, value in expected.items():
        assert torch.allclose(found[name].double(), value, rtol=1e-5, atol=1e-7), name
    without = everything(plain)
    assert all(torch.equal(value, everything(t)[name]) for name, value in without.items())


def test_averages_stored_at_snapshots_by_default(tmp_path):
    train_in(tmp_path, recipe("ada", KEPT))
    assert [p.end for p in posthoc.stored_averages(tmp_path).values()] == [8, 8, 16, 16, 24, 24]


def test_averages_cannot_begin_in_the_middle():
    t = trainer(recipe("ada"))
    with pytest.raises(UserError, match=r"this run keeps averages of none of these; they count from the first step on"):
        trainer(recipe("ada", KEPT)).load_state(t.state())
    kept = trainer(recipe("ada", KEPT))
    t.load_state(kept.state())  # to leave them out is no trouble
    damaged = copy.deepcopy(kept.state())
    damaged["averages"]["0.05"]["mapping.w_avg"] = torch.zeros(3)
    with pytest.raises(UserError, match="averages"):
        kept.load_state(damaged)


def test_the_option():
    values = dict.fromkeys([o.name for o in OPTIONS]) | {"data": EMOJI}
    on, _ = resolve("demo", 1, values | {"posthoc_ema": True}, [])
    off, _ = resolve("demo", 1, values, [])
    assert (on.ema.posthoc, off.ema.posthoc) == (power.DEFAULT_LENGTHS, ())
    assert power.DEFAULT_LENGTHS == (0.05, 0.10), "the paper's"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["ema.posthoc=[0.05,0.05]"], "at most 4 lengths, each once"),
        (["ema.posthoc=[0.02,0.05,0.1,0.15,0.2]"], "at most 4 lengths, each once"),
        (["ema.posthoc=[0.3]"], "0.3 is not from 0.01 to 0.25"),
        (["ema.posthoc_kimg=1"], "nothing to store without --posthoc-ema=1"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(UserError, match=re.escape(message)):
        check_config(recipe("ada", *settings))
