"""`styleloom.load`, and the notebook that shows it."""

import base64
import io
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from nbclient import NotebookClient
from PIL import Image
from support.small_generators import network_file, small_generator

import generate
import styleloom
from dnnlib import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    network_file(folder, small_generator(), "network-snapshot-000001.pkl")
    network_file(folder, small_generator(c_dim=3), "classes.pkl")
    return folder


@pytest.fixture(scope="module")
def net(folder):
    return styleloom.load(folder)


def test_samples_are_those_of_the_command(net, folder, tmp_path):
    done = CliRunner().invoke(
        generate.main, [f"--network={folder}", f"--outdir={tmp_path}", "--seeds=3,9", "--trunc=0.5"]
    )
    assert done.exit_code == 0, done.output
    pictures = net.sample([3, 9], truncation=0.5)
    for seed, picture in zip((3, 9), pictures):
        assert np.array_equal(np.array(Image.open(tmp_path / f"seed{seed:04d}.png")), np.array(picture))
    assert pictures.array.shape == (2, 32, 32, 3)
    assert not np.array_equal(pictures.array, net.sample([3, 9]).array)
    assert "32x32" in repr(net)
    assert "network-snapshot-000001.pkl" in repr(net)


def test_pictures_show_and_save_themselves(net, tmp_path):
    pictures = net.sample(range(5))
    shown = Image.open(io.BytesIO(pictures._repr_png_()))
    assert shown.size == (3 * 96 + 2 * 2, 2 * 96 + 2)  # three columns, enlarged threefold
    pictures.save(tmp_path / "five.png", columns=5)
    assert Image.open(tmp_path / "five.png").size == (5 * 96 + 4 * 2, 96)
    net.sample(3).save(tmp_path / "one.png")
    assert np.array_equal(np.array(Image.open(tmp_path / "one.png")), net.sample(3).array[0])
    with pytest.raises(UserError, match="no form is known"):
        pictures.save(tmp_path / "five.xyz")


def test_styles_render_to_the_samples(net):
    ws = net.styles([1, 2])
    assert np.array_equal(net.render(ws).array, net.sample([1, 2]).array)
    with pytest.raises(UserError, match=r"styles of shape \(2, 1, 16\)"):
        net.render(ws[:, :1])


def test_labels_of_every_kind(folder):
    net = styleloom.load(folder / "classes.pkl")
    assert net.classes == 3
    one = net.sample([0, 1], labels=2).array
    assert np.array_equal(net.sample([0, 1], labels=[2, 2]).array, one)
    assert np.array_equal(net.sample([0, 1], labels=torch.eye(3)[[2]]).array, one)
    assert not np.array_equal(net.sample([0, 1], labels=[2, 0]).array[1], one[1])
    for labels, message in ((None, "which class"), (3, "does not exist"), ([0, 1, 2], "3 of them for 2 seeds")):
        with pytest.raises(UserError, match=message):
            net.sample([0, 1], labels=labels)


@pytest.mark.parametrize("seeds", [[], -1, [2**32], [0.5], "0-3"])
def test_seeds_that_are_none(net, seeds):
    with pytest.raises(UserError, match="whole numbers from 0"):
        net.sample(seeds)


def test_projection_of_a_sample_comes_closer(net):
    found = net.project(net.sample(7)[0], steps=20, space="w")
    assert found.distance < found.average_distance
    assert np.array_equal(found.array[1], net.sample(7).array[0])  # the target
    assert np.array_equal(net.render(found.ws).array[0], found.array[2])
    array = net.project(net.sample(7).array[0], steps=1, space="w")
    assert np.array_equal(array.array[1], found.array[1])
    with pytest.raises(UserError, match="an array of float64"):
        net.project(np.zeros((4, 4)))
    with pytest.raises(UserError, match="cannot read the picture"):
        net.project("nowhere.png")


def test_no_network_is_one_line(tmp_path):
    for path in (tmp_path, tmp_path / "nothing.pkl"):
        with pytest.raises(UserError, match="holds no network-snapshot|does not exist"):
            styleloom.load(path)


def test_the_notebook_runs(folder, tmp_path):
    notebook = nbformat.read(ROOT / "docs" / "notebooks" / "sampling.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit the notebook without its outputs"
    cells = {tag: c for c in notebook.cells for tag in c.metadata.get("tags", [])}
    assert "styleloom train --cfg=demo" in cells["setup"].source
    notebook.cells.remove(cells["setup"])
    cells["parameters"].source = f"NETWORK = {str(folder)!r}; STEPS = 2\nimport sys; sys.path.insert(0, {str(ROOT)!r})"
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [o for c in notebook.cells for o in c.get("outputs", [])]
    shown = [o.data["image/png"] for o in outputs if "image/png" in o.get("data", {})]
    assert len(shown) == 5
    sizes = [Image.open(io.BytesIO(base64.b64decode(data))).size for data in shown]
    assert sizes[0] == (4 * 96 + 3 * 2, 4 * 96 + 3 * 2)
    assert (tmp_path / "four.png").exists()
    printed = "".join(o.get("text", "") for o in outputs)
    assert re.search(r"\d/2 \[.*distance", printed)  # the bar of the projection
    assert "Warning" not in printed
