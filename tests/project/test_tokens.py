"""benchmarks/tokens.py: sizes by tokens, and operations that grow faster than these."""

import json
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from benchmarks import tokens
from dnnlib.errors import UserError

TINY = ("G.depth=4", "D.depth=1", "G.width=16", "D.width=16", "G.heads=2", "D.heads=2", "D.label_dim=8")


def test_sizes_follow_from_the_tokens():
    for count, side in ((64, 16), (256, 32), (1024, 64)):
        cfg = tokens.config(count, "gat_s2", 2, TINY)
        assert cfg.G.img_resolution == cfg.D.img_resolution == (side, side)
    with pytest.raises(UserError, match="square pictures have 64, 256, 1024"):
        tokens.config(65, "gat_s2", 2, TINY)
    with pytest.raises(UserError, match="stylegan2 has no patches"):
        tokens.config(64, "demo_stylegan2", 2, ())


def test_operations_grow_faster_than_tokens():
    """Four times the tokens: four times the work of all layers, sixteen times that of attention's products."""
    few, many = (tokens.measure(tokens.config(n, "gat_s2", 1, TINY), runs=1) for n in (64, 256))
    assert 4 < many["operations"] / few["operations"] < 16
    assert few["seconds"] > 0
    assert many["memory"] >= 0


def test_the_command_prints_a_row_per_size_and_how_it_grew(monkeypatch):
    """What runs in a process of its own is stood in for here."""

    def run(command, **_):
        count = int(next(a for a in command if a.startswith("--tokens=")).partition("=")[2])
        assert [a for a in command if a.startswith("--set=")] == [f"--set={s}" for s in TINY]
        row = {"seconds": count / 64, "memory": count * 2.0, "operations": count**2 * 1e6}
        return SimpleNamespace(stdout=f"noise\n{json.dumps(row)}\n")

    monkeypatch.setattr(tokens.subprocess, "run", run)
    said = CliRunner().invoke(tokens.main, ["--batch=2", *(f"--set={s}" for s in TINY)])
    assert said.exit_code == 0, said.output
    rows = [line.split() for line in said.output.splitlines()[2:]]
    assert rows[0] == ["64", "500.0", "128", "4.10"]
    assert rows[1] == ["256", "2000.0", "4.00", "512", "4.00", "65.54", "16.00"]
    assert len(rows) == 3
