"""Files with a valid digest that say odd things of their training: they are shown, converted and measured as ever."""

import pytest
from click.testing import CliRunner
from support import official_files

import calc_metrics
from training.networks import __main__ as command
from training.networks import files

FORMATS = official_files.FOLDER.parent / "formats"
ODD = [{"data": 3}, {"data": {"path": 3, "mirror": [1]}}, {"data": {"path": "\x1b[2J\ud800"}}, {"a": [[[]]]}]


@pytest.mark.parametrize("config", ODD, ids=range(len(ODD)))
@pytest.mark.parametrize("suffix", [".pkl", ".safetensors"])
def test_odd_metadata_do_not_matter(config, suffix, tmp_path):
    content = files.read(FORMATS / "v1.pkl")
    content.training_config = config
    content.provenance = {"program": ["x"], "kimg": "y", "torch": {}}
    content.training_set_kwargs = {"num_images": "x", "path": [1]}
    file = tmp_path / f"x{suffix}"
    files.write(file, content)
    for args in (["show", file], ["verify", file], ["convert", file, tmp_path / "y.pkl"], ["card", file]):
        result = CliRunner().invoke(command.main, list(map(str, args)))
        assert result.exit_code == 0, result.output
        assert "\x1b" not in result.output
    result = CliRunner().invoke(calc_metrics.main, ["--network", str(file), "--metrics=kid2k_lite0"])
    assert result.exit_code == 2
    assert result.output.startswith("Error: ")
    assert result.output.count("\n") == 1
    assert "\x1b" not in result.output
