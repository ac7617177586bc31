"""`--import`: what a file may register, and that it may be named in any way and run by every process."""

import sys

import numpy as np
import pytest
from click.testing import CliRunner
from support.dataset_samples import read_dataset_zip

import dataset_tool
from dnnlib import plugins
from dnnlib.errors import UserError
from training.conversion import sources
from training.conversion.sources import SourceOptions, open_source, register_source

SOURCE = '''
"""Pictures of one grey value each, named in a text file; the picture is a class of this very file."""
import numpy as np
from PIL import Image
from training.conversion.sources import Item, register_source

class Flat:
    cost = 1
    def __init__(self, value):
        self.value = value
    def open(self):
        return Image.fromarray(np.full((8, 8), self.value, np.uint8))

class Greys:
    channels, classes, total = 1, [], None
    def __init__(self, path, options):
        self.path, self.split = path, options.split
    def items(self):
        for line in open(self.path):
            yield Item(line.strip(), None, Flat(int(line) + int(self.split or 0)))

register_source("greys", lambda path: path.endswith(".greys"), Greys, takes=("split",))
'''


@pytest.fixture
def clean(monkeypatch):
    """What plug-ins leave behind in the process."""
    monkeypatch.setattr(sources, "_own_kinds", [])
    monkeypatch.setattr(plugins, "_imported", [])
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if name.startswith("plugin_"):
            del sys.modules[name]


def convert(*arguments: object):
    return CliRunner().invoke(dataset_tool.main, [str(a) for a in arguments])


def test_a_source_with_pictures_of_its_own_class_reaches_the_workers(tmp_path, clean):
    (tmp_path / "plugin_greys.py").write_text(SOURCE)
    (tmp_path / "x.greys").write_text("\n".join(map(str, range(40))))
    done = convert(f"--import={tmp_path}/plugin_greys.py", f"--source={tmp_path}/x.greys", f"--dest={tmp_path}/x.zip",
                   "--num-workers=2", "--split=100")  # fmt: skip
    assert done.exit_code == 0, done.output
    images = read_dataset_zip(tmp_path / "x.zip")[0]
    np.testing.assert_array_equal(images[:, 0, 0, 0], np.arange(100, 140))
    refused = convert(f"--source={tmp_path}/x.greys", f"--dest={tmp_path}/y.zip", "--label-file=a")
    assert refused.output == "Error: --label-file means nothing for a source of the kind 'greys'\n"


def test_sources_of_ones_own_come_first_and_have_their_own_names(tmp_path, clean):
    (tmp_path / "a.zip").write_bytes(b"not a zip")
    register_source("mine", lambda path: path.endswith(".zip"), lambda path, options: "opened")
    assert open_source(str(tmp_path / "a.zip"), SourceOptions()) == "opened"
    for name in ("mine", "folder"):
        with pytest.raises(ValueError, match="two kinds of source register the name"):
            register_source(name, lambda path: True, lambda path, options: None)


def test_a_relative_name_twice_is_one_import(tmp_path, clean, monkeypatch):
    (tmp_path / "plugin_counts.py").write_text("import sys\nsys.plugin_runs = getattr(sys, 'plugin_runs', 0) + 1\n")
    monkeypatch.chdir(tmp_path)
    for path in ("plugin_counts.py", "./plugin_counts.py", str(tmp_path / "plugin_counts.py")):
        plugins.import_file(path)
    assert sys.plugin_runs == 1
    assert plugins.imported_files() == (str(tmp_path / "plugin_counts.py"),)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "plugin_counts.py").write_text("")
    with pytest.raises(UserError, match="a module called plugin_counts is loaded already; rename"):
        plugins.import_file("other/plugin_counts.py")
    del sys.plugin_runs


def test_a_file_that_fails_says_why_and_leaves_no_module(tmp_path, clean):
    (tmp_path / "plugin_bad.py").write_text("1 / 0")
    with pytest.raises(UserError, match=r"plugin_bad.py failed: ZeroDivisionError: division by zero"):
        plugins.import_file(str(tmp_path / "plugin_bad.py"))
    assert "plugin_bad" not in sys.modules
    assert plugins.imported_files() == ()
