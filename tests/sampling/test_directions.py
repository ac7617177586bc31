"""Directions in w: against their definitions, and through the commands."""

import json
import threading
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from support.small_generators import lively, network_file, small_generator

import generate
from dnnlib import UserError
from training import networks
from training.networks.generators.stylegan2 import StyleGAN2Config
from training.networks.generators.stylenat import StyleNATConfig
from training.sampling.directions.factorisation import Directions, find_directions, style_layers, style_weights
from training.sampling.explorer import Explorer, View, serve
from training.sampling.seeds import images_of_styles, styles_of_seeds

NO_LABEL = torch.zeros(1, 0)
SMALL = {"img_resolution": (16, 16), "z_dim": 16, "w_dim": 16}
NAT = {"channels": [8] * 3, "kernels": [[3]] * 3, "min_heads": 2}
GENERATORS = {
    "styleformer": lambda: small_generator(),
    "stylegan2": lambda: lively(networks.build(StyleGAN2Config(channel_base=64, **SMALL))),
    "stylenat": lambda: lively(
        networks.build(StyleNATConfig(channels=[8] * 3, kernels=[[3]] * 3, min_heads=2, **SMALL))
    ),
}


@pytest.fixture(scope="module")
def G():
    return small_generator()


@pytest.mark.parametrize("kind", GENERATORS)
def test_the_style_layers_of_every_architecture_are_found(kind):
    """All of them: where none of those found looks at number 3 of w any more, it changes no pixel."""
    G = GENERATORS[kind]()
    ws = styles_of_seeds(G, [0], NO_LABEL)
    moved = ws.clone()
    moved[:, :, 3] += 1
    assert not torch.equal(*images_of_styles(G, torch.cat([ws, moved])))
    assert len(style_weights(G)) > G.w_dim
    for layer in style_layers(G):
        layer.weight[:, 3] = 0
    assert not style_weights(G)[:, 3].any()
    assert torch.equal(*images_of_styles(G, torch.cat([ws, moved])))


def test_sefa_maximises_what_the_layers_get(G):
    """No unit vector makes ||A n|| larger, and the rest likewise among those at right angles."""
    A = style_weights(G)
    found = find_directions(G, "sefa", 4, NO_LABEL).vectors.double()
    assert torch.allclose(found @ found.T, torch.eye(4, dtype=torch.float64), atol=1e-5)
    values = (A @ found.T).norm(dim=0)
    assert torch.allclose(values, torch.linalg.svdvals(A)[:4], rtol=1e-5)
    random = torch.nn.functional.normalize(torch.randn(1000, G.w_dim, dtype=torch.float64))
    assert (A @ random.T).norm(dim=0).max() <= values[0]


def test_sefa_of_some_styles_looks_at_their_layers(G):
    every, coarse, fine = (style_weights(G, s) for s in (None, [0], [G.num_ws - 1]))
    assert 0 < len(coarse) < len(every)
    assert not torch.equal(coarse[:8], fine[:8])


def test_pca_are_the_principal_components_of_w(G):
    found = find_directions(G, "pca", 3, NO_LABEL)
    z = torch.from_numpy(np.random.RandomState(0).randn(10_000, G.z_dim)).float()
    w = G.mapping(z, NO_LABEL.expand(len(z), -1))[:, 0].double()
    values, vectors = torch.linalg.eigh(torch.cov(w.T))
    cosines = (found.vectors.double() @ vectors.flip(1)[:, :3]).diagonal().abs()
    assert torch.allclose(cosines, torch.ones(3, dtype=torch.float64), atol=1e-4)
    assert torch.allclose(found.scales.double(), values.flip(0)[:3].sqrt(), rtol=1e-3)


def test_moving_is_in_standard_deviations_and_by_styles(G):
    found = find_directions(G, "pca", 2, NO_LABEL)
    ws = styles_of_seeds(G, [0], NO_LABEL)
    moved = found.moved(ws, [0.0, 2.0], [1])
    assert torch.allclose((moved - ws)[:, 1], 2 * found.scales[1] * found.vectors[1], atol=1e-6)
    assert torch.equal(moved[:, 0], ws[:, 0])
    assert torch.equal(found.moved(ws, []), ws)


def test_files_of_directions(G, tmp_path):
    found = find_directions(G, "sefa", 3, NO_LABEL)
    found.save(tmp_path / "d.npz")
    again = Directions.load(str(tmp_path / "d.npz"), G)
    assert torch.equal(again.vectors, found.vectors)
    assert again.method == "sefa"
    (tmp_path / "bad.npz").write_bytes(b"PK")
    np.savez(tmp_path / "other.npz", vectors=np.zeros((2, 3)), scales=np.ones(2), method=np.array("pca"))
    np.savez(tmp_path / "nan.npz", vectors=np.full((2, 16), np.nan), scales=np.ones(2), method=np.array("pca"))
    np.savez(tmp_path / "object.npz", vectors=np.array([{}]), scales=np.ones(1), method=np.array("pca"))
    for name, message in (
        ("bad", "is no file of directions"),
        ("other", "directions of 3 numbers"),
        ("nan", "is no file of directions"),
        ("object", "is no file of directions"),
        ("gone", "does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            Directions.load(str(tmp_path / f"{name}.npz"), G)


def call(*args):
    done = CliRunner().invoke(generate.main, ["directions", *args])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done


@pytest.mark.parametrize("method", ["sefa", "pca"])
def test_the_command_draws_a_sheet(G, tmp_path, method):
    net = network_file(tmp_path, G)
    where = (f"--network={net}", f"--out={tmp_path}/d.png", f"--file={tmp_path}/d.npz")
    done = call(*where, f"--method={method}", "--count=2", "--amounts=-2,0,2", "--seed=5")
    assert done.exit_code == 0, done.output
    sheet = np.asarray(Image.open(tmp_path / "d.png").convert("RGB"))
    middle = sheet[-96:, -2 * 96 - 2 : -96 - 2][::3, ::3]
    assert np.array_equal(middle, images_of_styles(G, styles_of_seeds(G, [5], NO_LABEL))[0].permute(1, 2, 0).numpy())
    assert not np.array_equal(sheet[-96:, -96:], sheet[-96:, -2 * 96 - 2 : -96 - 2])
    assert len(Directions.load(str(tmp_path / "d.npz"), G).vectors) == 2


def test_mistakes_are_one_line(G, tmp_path):
    net = network_file(tmp_path, G)
    for option, message in (
        ("--count=17", "w has 16 dimensions"),
        ("--amounts=a", "neither a number nor a list"),
        ("--file=x.txt", "written as .npz"),
        ("--styles=9", "has the styles 0 to"),
    ):
        done = call(f"--network={net}", f"--out={tmp_path}/d.png", option)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert message in done.stderr
    assert not (tmp_path / "d.png").exists()


def test_the_explorer_moves_along_them(G):
    found = find_directions(G, "sefa", 2, NO_LABEL)
    explorer = Explorer(G, "net", found)
    plain, moved = (np.asarray(explorer.picture(View(amounts=a))) for a in ((), (1.5, -1.0)))
    expected = images_of_styles(G, found.moved(styles_of_seeds(G, [0], NO_LABEL), [1.5, -1.0]))[0]
    assert np.array_equal(moved[::16, ::16], expected.permute(1, 2, 0).numpy())
    assert not np.array_equal(plain, moved)
    with pytest.raises(UserError, match="3 amounts, but 2 directions"):
        explorer.picture(View(amounts=(0, 0, 1)))


def test_the_server_knows_how_many_and_answers_head(G):
    server = serve(G, "net", 0, find_directions(G, "pca", 2, NO_LABEL))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        assert json.loads(urlopen(f"{url}/info").read())["directions"] == 2
        with urlopen(Request(f"{url}/", method="HEAD")) as answer:
            assert int(answer.headers["Content-Length"]) > 1000
            assert answer.read() == b""
    finally:
        server.shutdown()
        server.server_close()
