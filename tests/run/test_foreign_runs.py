"""Run folders of strangers, and damaged ones: nothing outside is written, no memory corrupted, every error one line."""

import os
from pathlib import Path

import pytest
import torch
from support.tiny_runs import recipe, session, train_in, trainer

from dnnlib.config import set_field
from dnnlib.errors import UserError
from training.run.checkpoint import load_state, save_state
from training.run.run_folder import RunFolder


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run folder at its end, after two steps."""
    folder = tmp_path_factory.mktemp("run") / "00000-x"
    train_in(folder, recipe("ada", "total_kimg=0.008"))
    return folder


@pytest.fixture
def run_copy(finished, tmp_path) -> Path:
    folder = tmp_path / "00000-x"
    folder.mkdir()
    for file in finished.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.mark.parametrize("name", ["{absolute}", "../victim", "reals.png", "training_options.json"])
def test_a_state_names_no_other_file(name, run_copy):
    """Only the two logs may be cut; a state that names another file is refused before anything is touched."""
    victim = run_copy.parent / "victim"
    victim.write_bytes(b"precious")
    state = load_state(run_copy)
    before = {file.name: file.read_bytes() for file in run_copy.iterdir() if file.is_file()}
    key = str(victim) if name == "{absolute}" else name
    for sizes in ({key: 0}, state["log_sizes"] | {key: 0}):
        with pytest.raises(UserError, match="log_sizes"):
            RunFolder.reopen(run_copy, recipe("ada"), state | {"log_sizes": sizes})
    assert victim.read_bytes() == b"precious"
    assert {file.name: file.read_bytes() for file in run_copy.iterdir() if file.is_file()} == before


@pytest.mark.parametrize("sizes", [None, [], {}, {"log.txt": -1, "stats.jsonl": 0}, {"log.txt": 0.5, "stats.jsonl": 0}])
def test_odd_log_sizes_are_refused(sizes, run_copy):
    with pytest.raises(UserError, match="log_sizes"):
        RunFolder.reopen(run_copy, recipe("ada"), load_state(run_copy) | {"log_sizes": sizes})


REPLACED = ("reals.png", "fakes000000.png", "report.html", "training_options.json", "training-state.pt")
APPENDED = ("log.txt", "stats.jsonl", "metric-x.jsonl")


def link_all(link, names: tuple[str, ...], folder: Path) -> dict[Path, bytes]:
    """Links that stand for these files of the run, and lead to files beside the folder: these, with their content."""
    victims = {}
    for name in names:
        content = (folder / name).read_bytes() if name.endswith((".pt", ".json")) else b"precious, without an end"
        victims[folder.parent / name] = content
        (folder.parent / name).write_bytes(content)
        (folder / name).unlink(missing_ok=True)
        link(folder.parent / name, folder / name)
    return victims


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symbolic", "hard"])
def test_links_in_a_foreign_run_are_not_followed(link, run_copy):
    """Whatever a run writes when it goes on, the files that links lead to stay as they are."""
    (run_copy / "training-state.pt").rename(run_copy.parent / "state")
    victims = link_all(link, REPLACED[:-1], run_copy)
    link(run_copy.parent / "state", run_copy / "training-state.pt")
    victims[run_copy.parent / "state"] = (run_copy.parent / "state").read_bytes()
    train_in(run_copy, recipe("ada", "total_kimg=0.016"))
    assert load_state(run_copy)["nimg"] == 16
    assert {victim: victim.read_bytes() for victim in victims} == victims


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symbolic", "hard"])
@pytest.mark.parametrize("name", APPENDED)
def test_a_run_whose_logs_are_links_is_refused(link, name, run_copy):
    victims = link_all(link, (name,), run_copy)
    with pytest.raises(UserError, match=f"cannot write .*{name}") as e:
        train_in(run_copy, recipe("ada", "total_kimg=0.016"))
    assert "\n" not in str(e.value)
    assert {victim: victim.read_bytes() for victim in victims} == victims


def test_a_named_pipe_does_not_hold_up_a_start(run_copy):
    for name in ("stats.jsonl", "training_options.json"):
        (run_copy / name).unlink()
        os.mkfifo(run_copy / name)
    with pytest.raises(UserError, match="cannot write .*stats.jsonl"):
        train_in(run_copy, recipe("ada", "total_kimg=0.016"))


def _misfits(state: dict) -> dict[str, dict]:
    """States of which one optimiser tensor doesn't fit, by what is wrong."""
    slots = state["optimizers"]["G"]
    name = next(n for n, s in slots.items() if s["exp_avg"].dim() > 1)
    good = slots[name]
    bad = {
        "shape": good | {"exp_avg": good["exp_avg"][:1].clone()},
        "type": good | {"exp_avg_sq": good["exp_avg_sq"].double()},
        "is no plain tensor": good | {"exp_avg": good["exp_avg"].tolist()},
        "step has shape": good | {"step": torch.ones(7)},
        "step is": good | {"step": torch.tensor(float("nan"))},
        "wants": {k: v for k, v in good.items() if k != "exp_avg_sq"},
    }
    made = {text: {**slots, name: change} for text, change in bad.items()}
    made["no parameter"] = slots | {"a.stranger": good}
    made["freeze the same layers"] = {10_000: good}
    made["no table of parameters"] = {0: good, "x": good}
    return {text: state | {"optimizers": state["optimizers"] | {"G": change}} for text, change in made.items()}


def test_optimiser_state_that_does_not_fit_is_refused(finished, tmp_path):
    """Loaded unchecked, these make the fused optimiser write outside its memory."""
    state = load_state(finished)
    for text, changed in _misfits(state).items():
        save_state(tmp_path, changed)
        t = trainer(recipe("ada"))
        with pytest.raises(UserError, match=text) as e:
            t.load_state(load_state(tmp_path))
        assert "the optimiser of G" in str(e.value)
        assert not t.players["G"].optimizer.state, "nothing was taken"


def test_shared_memory_in_a_state_becomes_separate(finished, tmp_path):
    state = load_state(finished)
    for slots in state["optimizers"]["G"].values():
        slots["exp_avg_sq"] = slots["exp_avg"] = torch.zeros_like(slots["exp_avg"])
    t = trainer(recipe("ada"))
    t.load_state(state)
    t.step()
    for slots in t.players["G"].optimizer.state.values():
        assert slots["exp_avg"].is_contiguous() or slots["exp_avg"].dim() == 4
        assert slots["exp_avg"].data_ptr() != slots["exp_avg_sq"].data_ptr()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_layers_can_be_frozen_and_thawed_when_a_run_goes_on(count, finished):
    """What is frozen loses its moments, what is thawed gets new ones, and all the others keep theirs."""
    state = load_state(finished)
    cfg = recipe("ada", f"D.freeze_layers={count}")
    frozen = trainer(cfg)
    frozen.load_state(state)
    layer = next(name for name, p in frozen.D.named_parameters() if name not in _named(frozen))
    assert layer in state["optimizers"]["D"]
    kept = frozen.D.state_dict()[layer].clone()
    _check_moments(frozen, state)
    frozen.step()
    assert torch.equal(frozen.D.state_dict()[layer], kept)

    set_field(cfg, "D.freeze_layers=0")
    thawed = trainer(cfg)
    thawed.load_state(frozen.state())
    _check_moments(thawed, frozen.state())
    assert layer not in thawed.state()["optimizers"]["D"]
    thawed.step()
    assert not torch.equal(thawed.D.state_dict()[layer], kept)


def _named(t) -> dict:
    ids = {id(p) for group in t.players["D"].optimizer.param_groups for p in group["params"]}
    return {name: p for name, p in t.D.named_parameters() if id(p) in ids}


def _check_moments(t, state: dict) -> None:
    for name, slots in t.state()["optimizers"]["D"].items():
        assert all(torch.equal(v, state["optimizers"]["D"][name][slot]) for slot, v in slots.items())


def test_states_that_count_parameters_still_load(finished):
    """The first release's form."""
    t = trainer(recipe("ada"))
    state = load_state(finished)
    numbered = {name: dict(enumerate(slots.values())) for name, slots in state["optimizers"].items()}
    t.load_state(state | {"optimizers": numbered})
    assert t.state()["optimizers"].keys() == state["optimizers"].keys()
    _check_moments(t, state)


ODD = {
    "nimg": [-1, 2**60, "x", None, 1.5, True],
    "step_count": [-1, None, float("nan")],
    "next_tick": [float("nan"), float("inf"), "x"],
    "last_snapshot": ["../../x", "/etc/passwd", 3, "a\x1b[2J"],
    "pl_mean": [1.0, torch.zeros(3), torch.zeros((), dtype=torch.float64)],
    "stats": [None, {"Loss/x": torch.zeros(5, dtype=torch.float64)}, {3: torch.zeros(3, dtype=torch.float64)}],
    "means": [{"sign_real": torch.zeros(9, dtype=torch.float64)}, {"sign_real": torch.zeros(2)}, []],
    "watch": [{}, {"total": 0.0, "training": 0.0, "last_kimg": float("inf")}, 3],
    "health": [{"bad_steps": "x"}, {"no such": 1}, None],
    "modules": [{}, None, {"G": {}, "D": {}, "G_ema": {}, "augment_pipe": {}}],
    "optimizers": [{}, None, [], {"G": None, "D": None}],
}


@pytest.mark.parametrize("name", list(ODD))
def test_odd_values_in_a_state_are_one_line(name, finished, tmp_path):
    state = load_state(finished)
    for value in ODD[name]:
        save_state(tmp_path, state | {name: value})
        with pytest.raises(UserError) as e:
            session(recipe("ada"), None).load_state(load_state(tmp_path))
        assert "\n" not in str(e.value)
