"""The commands with networks that are no StyleGANs: R3GAN (no styles to speak of), GAT (an average style per class)."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import generate
from dnnlib.errors import UserError
from training import networks
from training.networks.generators.gat import GATConfig
from training.networks.generators.r3gan import R3GANConfig
from training.publishing.export import exported_program
from training.sampling.explorer import Explorer, View, view_of
from training.sampling.projection.search import ProjectionConfig, project
from training.sampling.seeds import images_of_styles, latent

GAT = {"z_dim": 8, "depth": 4, "width": 16, "heads": 2}
R3GAN = {"z_dim": 8, "widths": [8, 8], "blocks": [1, 1], "groups": [2, 2]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    for name, cfg in (
        ("r3gan", R3GANConfig(**R3GAN, img_resolution=(8, 12))),
        ("gat", GATConfig(**GAT, img_resolution=(8, 12))),
        ("classes", GATConfig(**GAT, img_resolution=(8, 12), c_dim=3)),
        ("latents", GATConfig(**GAT, img_resolution=(8, 8), img_channels=4)),
    ):
        networks.save(folder / f"{name}.pkl", {"G_ema": networks.build(cfg)})
    return folder


def run(*arguments) -> tuple[int, str]:
    result = CliRunner().invoke(generate.main, [str(a) for a in arguments])
    assert result.exit_code == 0 or result.output.strip().count("\n") == 0
    return result.exit_code, result.output


@pytest.mark.parametrize(
    "command",
    [
        ["--network=classes", "--outdir=out", "--seeds=0-1", "--class=1", "--trunc=0.5"],
        ["--network=r3gan", "--outdir=out", "--seeds=0-1"],
        ["grid", "--network=classes", "--out=out/x.png", "--seeds=0-1"],
        ["grid", "--network=gat", "--out=out/x.png", "--seeds=0-1", "--trunc=0,1"],
        ["mix", "--network=gat", "--out=out/x.png", "--rows=0", "--cols=1-2", "--styles=2-3"],
        ["walk", "--network=r3gan", "--out=out/x.gif", "--seeds=0-1", "--frames=2"],
        ["attention", "--network=classes", "--out=out/x.png", "--seed=0", "--class=2"],
    ],
)
def test_commands_that_work(command, folder, tmp_path):
    paths = [a.replace("=out", f"={tmp_path}/out") for a in command]
    paths = [f"--network={folder}/{a.partition('=')[2]}.pkl" if a.startswith("--network") else a for a in paths]
    assert run(*paths)[0] == 0
    files = [f for f in (tmp_path / "out").iterdir() if f.suffix in (".png", ".gif")]
    assert files
    assert all(Image.open(f).size[0] > 0 for f in files)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["--network=r3gan", "--outdir=out", "--seeds=0", "--trunc=0.5"], "no average style"),
        (["grid", "--network=r3gan", "--out=out/x.png", "--seeds=0", "--trunc=0,1"], "no average style"),
        (["mix", "--network=r3gan", "--out=out/x.png", "--rows=0", "--cols=1"], "a single style"),
        (["attention", "--network=r3gan", "--out=out/x.png", "--seed=0"], "no attention layers"),
        (["--network=r3gan", "--outdir=out", "--seeds=0", "--guidance=2"], "the generator r3gan has no guidance"),
        (["walk", "--network=gat", "--out=out/x.gif", "--guidance=2"], "a network without classes has no guidance"),
        (["--network=latents", "--outdir=out", "--seeds=0"], "maps of 4 channels"),
    ],
)
def test_commands_that_refuse(command, message, folder, tmp_path):
    paths = [a.replace("=out", f"={tmp_path}/out") for a in command]
    paths = [f"--network={folder}/{a.partition('=')[2]}.pkl" if a.startswith("--network") else a for a in paths]
    code, output = run(*paths)
    assert code == 2
    assert message in output
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize(("name", "layers"), [("r3gan", 0), ("gat", 4), ("classes", 4)])
def test_the_explorer_opens_them(name, layers, folder):
    G = networks.load(folder / f"{name}.pkl")["G_ema"]
    explorer = Explorer(G, name)
    assert len(explorer.info()["layers"]) == layers
    view = View(seed=1, class_index=0 if G.c_dim else None, at=(0.5, 0.5) if layers else None)
    assert explorer.picture(view).size[1] >= 8


def test_guidance_moves_styles_away_from_the_mean_of_classes(folder, tmp_path):
    """The picture of a seed is that of the style that the mapping gives for this guidance."""
    network = f"--network={folder}/classes.pkl"
    assert run(network, f"--outdir={tmp_path}", "--seeds=3", "--class=1", "--guidance=2.5")[0] == 0
    G = networks.load(folder / "classes.pkl")["G_ema"]
    plain, guided = (G.mapping(latent(G, 3), torch.eye(3)[[1]], guidance=g) for g in (1, 2.5))
    expected = images_of_styles(G, guided)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(np.asarray(Image.open(tmp_path / "seed0003.png")), expected)
    assert not np.array_equal(expected, images_of_styles(G, plain)[0].permute(1, 2, 0).numpy())
    job = ["count", network, f"--out={tmp_path}/many", "--count=2", "--class=1"]
    assert run(*job, "--guidance=2")[0] == 0
    code, output = run(*job, "--guidance=3")
    assert (code, "was begun with another guidance" in output) == (2, True)


def test_the_explorer_shows_levels_and_guidance(folder):
    G = networks.load(folder / "classes.pkl")["G_ema"]
    explorer = Explorer(G, "classes")
    assert explorer.info()["levels"] == 4
    assert explorer.info()["guidance"]
    query = "seed=2&class=1&guidance=1.5"
    shown = [np.asarray(explorer.picture(view_of(f"{query}&level={level}"))) for level in range(4)]
    whole = np.asarray(explorer.picture(view_of(query)))
    assert np.array_equal(shown[3], whole)
    assert not np.array_equal(shown[0], whole)
    assert not np.array_equal(np.asarray(explorer.picture(view_of("seed=2&class=1"))), whole)
    with pytest.raises(UserError, match="no level 4: this network has 4"):
        explorer.picture(view_of(f"{query}&level=4"))
    other = Explorer(networks.load(folder / "r3gan.pkl")["G_ema"], "r3gan").info()
    assert (other["levels"], other["guidance"]) == (1, False)


@pytest.mark.parametrize("name", ["r3gan", "classes"])
def test_exported_programs(name, folder):
    G = networks.load(folder / f"{name}.pkl")["G_ema"]
    z, c = torch.randn(3, 8), torch.eye(3)[:, : G.c_dim]
    images = exported_program(G).module()(z, c)
    assert torch.allclose(images, G(z, c), atol=1e-5)


@pytest.mark.parametrize("name", ["r3gan", "gat", "classes"])
def test_projection_starts_from_an_average_style(name, folder):
    G = networks.load(folder / f"{name}.pkl")["G_ema"]
    c = torch.eye(3)[:1, : G.c_dim]
    z = torch.randn(1, 8, generator=torch.Generator().manual_seed(5))
    target = G(z, c)
    cfg = ProjectionConfig(steps=3, start_samples=4)
    found = project(G, lambda images: (images - target).square().mean((1, 2, 3)), cfg, c)
    assert found.ws.shape == (1, G.num_ws, G.w_dim)
    assert found.distance < found.average_distance
