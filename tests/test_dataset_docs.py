"""docs/datasets.md: its Python runs, its commands have only options that exist, its new source converts."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from dataset_samples import read_dataset_zip

import dataset_tool
from training.dataset.conversion import sources
from training.dataset.conversion.convert import ConvertOptions, convert
from training.dataset.conversion.picture import PixelPicture
from training.dataset.conversion.sources.base import Item
from training.dataset.folder_reader import files_with_suffix

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/datasets.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_options_exist():
    known = set(re.findall(r"--[a-z-]+", CliRunner().invoke(dataset_tool.main, ["--help"]).output))
    said = set(re.findall(r"(--[a-z][a-z-]+)", PAGE)) - {"--cond"}  # that one is training's
    assert said <= known


def test_reading_example_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    names: dict = {}
    exec(BLOCKS[0], names)
    assert names["images"].shape == (32, 3, 32, 32)
    assert names["labels"].shape == (32, 9)


def test_streaming_example_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    names: dict = {"images_seen": 0, "rank": 1}
    exec(BLOCKS[0], names)
    exec(BLOCKS[1].replace("    ...", "    break"), names)
    assert names["images"].shape == (16, 3, 32, 32)


def test_the_example_of_a_new_source_converts(tmp_path, monkeypatch):
    names = {"Iterator": Iterator, "np": np, "Item": Item, "PixelPicture": PixelPicture,
             "files_with_suffix": files_with_suffix}  # fmt: skip
    exec(BLOCKS[2], names)
    (tmp_path / "in").mkdir()
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pixels.tofile(tmp_path / "in/0.bin")
    kind = sources._Kind("numbered", lambda p: p.endswith("in"), lambda path, _: names["Numbered"](path))
    monkeypatch.setattr(sources, "_KINDS", (kind, *sources._KINDS))
    convert(
        sources.open_source(str(tmp_path / "in")), str(tmp_path / "o.zip"), ConvertOptions(), lambda *_: None, False
    )
    np.testing.assert_array_equal(read_dataset_zip(tmp_path / "o.zip")[0][0, :, :, 0], pixels)
