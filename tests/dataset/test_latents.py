"""Latents from pictures to samples: a data set of moments, training without the autoencoder, and pictures with it."""

import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from PIL import Image
from support import official_files
from support.dataset_samples import dataset_zip, pictures, png, write_zip
from support.metric_toys import ToyDetector
from support.small_generators import original_autoencoder, save_autoencoder
from support.tiny_runs import everything, recipe
from support.web.hub_server import Hub, serving

import calc_metrics
import dataset_tool
import generate
import train
from dnnlib.errors import UserError
from metrics import compute_metrics
from metrics.baselines import PCAGaussian
from training import networks
from training.dataset import open_dataset
from training.networks import __main__ as command
from training.networks import autoencoder
from training.networks.image_space import build_space
from training.networks.latents import LatentsConfig
from training.sampling.seeds import latent
from training.training_loop import Trainer

ROOT = Path(__file__).parents[2]
PIXELS = pictures(12, 16, 24)
LABELS = [i % 3 for i in range(12)]
TINY = ["--set=G.depth=4", "--set=G.width=16", "--set=G.heads=2", "--set=G.z_dim=8", "--set=D.depth=2"]
TINY += ["--set=D.width=16", "--set=D.heads=2", "--set=D.label_dim=8", "--batch=4", "--batch-gpu=4"]


def call(program, *arguments) -> tuple[int, str]:
    result = CliRunner().invoke(program.main, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    if result.exit_code:
        assert result.exit_code == 2
        assert result.output.strip().count("\n") == 0
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def vae(tmp_path_factory) -> Path:
    return save_autoencoder(tmp_path_factory.mktemp("vae"))


@pytest.fixture(scope="module")
def data(tmp_path_factory, vae) -> Path:
    folder = tmp_path_factory.mktemp("latents")
    source = dataset_zip(folder / "pictures.zip", PIXELS, LABELS)
    code, output = call(dataset_tool, f"--source={source}", f"--dest={folder}/latents.zip", "--encode=vae",
                        f"--autoencoder={vae}", "--num-workers=1")  # fmt: skip
    assert (code, output.splitlines()[0]) == (
        0,
        f"12 latents of images of 24x16 RGB in {folder}/latents.zip, with labels",
    )
    return folder / "latents.zip"


@pytest.fixture(scope="module")
def run(tmp_path_factory, data) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("runs")
    arguments = [f"--data={data}", "--cond=1", "--cfg=gat_s2", "--kimg=0.012", "--tick=0.004", "--snap=1", *TINY]
    code, output = call(train, f"--outdir={folder}", "--metrics=none", *arguments)
    assert code == 0, output
    return next(folder.iterdir())


def network(run: Path) -> Path:
    return sorted(run.glob("network-snapshot-*.pkl"))[-1]


# -- data sets ----------------------------------------------------------------------------------------------------


def test_the_data_set_holds_what_the_library_encodes(data, vae):
    model = original_autoencoder(vae)
    with torch.no_grad():
        images = torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() / 127.5 - 1
        encoded = model.encode(images).latent_dist
    dataset = open_dataset(data, use_labels=True)
    assert dataset.image_shape == (4, 8, 12)
    assert dataset.space == {
        **{"kind": "latents", "autoencoder": str(vae), "scale": 0.5, "shift": 0.25, "factor": 2},
        **{"picture_channels": 3, "digest": autoencoder.load_autoencoder(str(vae)).digest},
    }
    moments, labels = dataset.load(range(12))
    assert moments.dtype == torch.float32
    assert torch.allclose(moments, torch.cat([encoded.mean, encoded.std], dim=1), atol=1e-5)
    assert labels.argmax(1).tolist() == LABELS
    assert torch.equal(dataset.thumbnails([3])[0], torch.from_numpy(PIXELS[3]).permute(2, 0, 1))
    with zipfile.ZipFile(data) as z:  # anybody's numpy reads them
        again = np.load(io.BytesIO(z.read("00000/img00000005.npy")), allow_pickle=False)
    assert np.array_equal(again, moments[5].numpy())


def test_folders_shards_and_workers_give_the_same(data, vae, tmp_path):
    source = data.with_name("pictures.zip")
    rest = [f"--source={source}", "--encode=vae", f"--autoencoder={vae}"]
    for dest, more in (("folder", ["--num-workers=2"]), ("shards", ["--num-workers=1", "--shard-size=5"])):
        assert call(dataset_tool, f"--dest={tmp_path / dest}", *rest, *more)[0] == 0
    expected = open_dataset(data, use_labels=True)
    for dest in ("folder", "shards"):
        found = open_dataset(tmp_path / dest, use_labels=True)
        assert found.space == expected.space
        assert all(torch.equal(a, b) for a, b in zip(found.load(range(12)), expected.load(range(12))))
    assert open_dataset(tmp_path / "folder").content_hash() == open_dataset(data).content_hash()
    other = open_dataset(
        rewritten(data, tmp_path / "b.zip", "latents.json", lambda d: d.replace(b'"digest": "', b'"digest": "0'))
    )
    assert other.content_hash() != expected.content_hash()


def test_large_pictures_have_small_thumbnails_and_bad_ones_are_left_out(vae, tmp_path):
    big = pictures(2, 96, 160)
    write_zip(tmp_path / "p.zip", {"a.png": png(big[0]), "b.png": b"no picture", "c.png": png(big[1])})
    code, output = call(dataset_tool, f"--source={tmp_path}/p.zip", f"--dest={tmp_path}/l.zip", "--encode=vae",
                        f"--autoencoder={vae}", "--num-workers=1")  # fmt: skip
    assert code == 0
    assert "1 skipped" in output
    dataset = open_dataset(tmp_path / "l.zip")
    assert dataset.image_shape == (4, 48, 80)
    assert dataset.thumbnails([0, 1]).shape == (2, 3, 38, 64)


def rewritten(data: Path, dest: Path, member: str, change) -> Path:
    with zipfile.ZipFile(data) as z:
        files = {name: z.read(name) for name in z.namelist()}
    files[member] = change(files[member])
    return write_zip(dest, files)


@pytest.mark.parametrize(
    ("member", "change", "message"),
    [
        ("latents.json", lambda d: d[:9], "latents.json is damaged"),
        ("latents.json", lambda d: b"{}", "describes no latents"),
        ("00000/img00000000.npy", lambda d: d[:-1], "its size is not what its header says"),
        ("00000/img00000000.npy", lambda d: b"PK" + d, "no .npy file of moments"),
        ("00000/img00000000.npy", lambda d: d.replace(b"'<f4'", b"'<i4'"), "not float32"),
        ("00000/img00000000.npy", lambda d: d.replace(b"'<f4'", b"'|O' "), "not float32"),
        ("00000/img00000000.npy", lambda d: d[:-4] + b"\0\0\x80\xff", "its numbers are no moments"),
        ("00000/img00000001.npy", lambda d: d.replace(b"(8, 8, 12)", b"(8, 12, 8)"), "mixes sizes"),
    ],
)
def test_damage_is_one_line(data, tmp_path, member, change, message):
    with pytest.raises(UserError, match=message):
        open_dataset(rewritten(data, tmp_path / "x.zip", member, change)).load([0])


def test_what_makes_no_sense_is_refused(data, vae, tmp_path):
    source, dest = f"--source={data.with_name('pictures.zip')}", f"--dest={tmp_path}/x.zip"
    for arguments, message in (
        ([source, dest, "--autoencoder=x"], "--autoencoder is for --encode=vae"),
        ([source, dest, "--encode=vae"], "where is the autoencoder?"),
        ([source, dest, "--encode=vae", f"--autoencoder={tmp_path}"], "no config.json"),
        ([source, dest, "--encode=vae", "--autoencoder=hf://x"], "an address on the Hub reads hf://owner/name"),
        ([source, dest, "--encode=vae", f"--autoencoder={vae}", "--channels=grey"], "pictures of 3 channels"),
        ([source, dest, "--encode=vae", f"--autoencoder={vae}", "--width=15", "--height=15"], "multiples of 2"),
        ([source, "--inspect=s.png", "--encode=vae"], "means nothing with --inspect"),
        ([f"--source={data}", dest], "holds latents"),
    ):
        code, output = call(dataset_tool, *arguments, "--num-workers=1")
        assert code == 2
        assert message in output
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="can't be mirrored"):
        open_dataset(data, xflip=True)


# -- the space ----------------------------------------------------------------------------------------------------


def test_training_sees_samples_of_the_latents(data):
    dataset = open_dataset(data)
    space = build_space(LatentsConfig(**{k: v for k, v in dataset.space.items() if k != "kind"}))
    moments = dataset.load([0])[0].expand(20_000, -1, -1, -1)
    torch.manual_seed(0)
    drawn = space.to_network(moments)
    mean, std = moments[0].chunk(2)
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.allclose(drawn.mean(0), (mean - 0.25) * 0.5, atol=0.02)
    assert torch.allclose(drawn.std(0), std * 0.5, rtol=0.05)
    assert space.picture_size((8, 12)) == (16, 24)


def test_pictures_are_what_the_library_decodes(data, vae):
    dataset = open_dataset(data)
    space = build_space(LatentsConfig(**{k: v for k, v in dataset.space.items() if k != "kind"}))
    latents = torch.randn(3, 4, 8, 12, requires_grad=True)
    with torch.no_grad():
        expected = original_autoencoder(vae).decode(latents / 0.5 + 0.25).sample
    found = space.decode(latents)
    assert torch.allclose(found, expected, atol=1e-5)
    found.sum().backward()
    assert latents.grad.abs().sum() > 0
    moments = dataset.load([4, 5])[0]
    with torch.no_grad():
        decoded = original_autoencoder(vae).decode(moments[:, :4]).sample
    difference = space.stored_to_pixels(moments).float() - (decoded * 127.5 + 128).clamp(0, 255).floor()
    assert difference.abs().max() <= 1


def test_autoencoders_of_the_hub_are_downloaded_as_two_files(vae, monkeypatch, tmp_path):
    """By who asks for it, not by what a network file or a data set names: these find it once it is here."""
    place, digest = "hf://some-one/vae.x/sub", autoencoder.load_autoencoder(str(vae)).digest
    files = {
        f"sub/{name}": (vae / name).read_bytes() for name in ("config.json", "diffusion_pytorch_model.safetensors")
    }
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    stand_in = Hub()
    stand_in.put("some-one/vae.x", files | {"sub/large.bin": b"x"})
    with serving(stand_in) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        with pytest.raises(UserError, match=f"{autoencoder.PLACE_VARIABLE}={place} downloads it"):
            autoencoder.recorded_autoencoder(place, digest)
        assert not stand_in.asked
        assert autoencoder.load_autoencoder(place).digest == digest
    assert not any("large" in asked for asked in stand_in.asked)
    assert autoencoder.recorded_autoencoder(place, digest).digest == digest  # without a connection, too


def test_push_does_not_say_where_the_autoencoder_lay(run, vae, tmp_path):
    code, output = call(command, "push", network(run), "me/latents", f"--folder={tmp_path}/made")
    assert code == 0, output
    made = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    assert set(made) == {"README.md", "network.safetensors", "samples.png"}
    assert not any(str(vae).encode() in content for content in made.values())
    assert autoencoder.load_autoencoder(str(vae)).digest.encode() in made["network.safetensors"]


def test_a_folder_of_something_else_is_one_line(vae, tmp_path):
    shutil.copytree(vae, tmp_path / "a")
    (tmp_path / "a" / "diffusion_pytorch_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="is no AutoencoderKL that diffusers can load"):
        autoencoder.load_autoencoder(str(tmp_path / "a"))
    config = json.loads((vae / "config.json").read_text())
    (tmp_path / "a" / "config.json").write_text(json.dumps(config | {"_class_name": "UNet2DModel"}))
    with pytest.raises(UserError, match="describes UNet2DModel"):
        autoencoder.load_autoencoder(str(tmp_path / "a"))


def test_without_the_library_the_line_says_what_to_install(vae, tmp_path):
    """As a process: nothing but the pictures needs it."""
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r}); sys.modules["diffusers"] = None
import dataset_tool; dataset_tool.main()
"""
    command = [sys.executable, "-c", code, f"--source={ROOT}/datasets/noto-emoji-32.zip", f"--dest={tmp_path}/x.zip"]
    command += ["--encode=vae", f"--autoencoder={vae}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "Error: latents need the package diffusers: pip install 'styleloom[latents]'"
    ]
    assert not list(tmp_path.iterdir())


# -- runs ---------------------------------------------------------------------------------------------------------


def test_a_run_leaves_pictures_and_says_its_autoencoder(run, vae):
    assert Image.open(run / "reals.png").size == Image.open(run / "fakes_init.png").size
    assert Image.open(run / "reals.png").size[0] % 24 == 0
    assert "Nothing can be shown" not in (run / "report.html").read_text()
    G = networks.load(network(run))["G_ema"]
    assert G.space.cfg.digest == autoencoder.load_autoencoder(str(vae)).digest
    assert (G.img_channels, G.img_size, G.picture_size) == (4, (8, 12), (16, 24))


def test_a_model_card_names_the_autoencoder_but_not_its_folder(run, vae, tmp_path):
    code, _ = call(command, "convert", network(run), tmp_path / "x.safetensors", "--only=G_ema")
    card = (tmp_path / "x.safetensors.md").read_text()
    assert code == 0
    assert f"| latents of the autoencoder | SHA-256 `{autoencoder.load_autoencoder(str(vae)).digest}` |" in card
    assert vae.name in card
    assert str(vae) not in card


def test_training_needs_no_autoencoder(data, tmp_path, monkeypatch):
    monkeypatch.setenv(autoencoder.PLACE_VARIABLE, "/nowhere")
    arguments = [f"--data={data}", "--cfg=gat_s2", "--kimg=0.004", "--tick=0.004", "--snap=1", *TINY]
    code, output = call(train, f"--outdir={tmp_path}", *arguments)
    assert code == 0, output
    assert "training goes on without pictures and fid50k_full: there is no autoencoder in /nowhere" in output
    folder = next(tmp_path.iterdir())
    assert network(folder).name == "network-snapshot-000000.pkl"
    assert not list(folder.glob("*.png"))
    code, output = call(train, f"--resume={folder}", "--kimg=0.008")
    assert (code, f"continuing {folder} from kimg 0.0" in output) == (0, True)
    assert json.loads((folder / "stats.jsonl").read_text().splitlines()[-1])["Progress/kimg"]["mean"] == pytest.approx(
        0.008
    )
    code, output = call(train, f"--outdir={tmp_path}", "--metrics=kid1k_lite0", "--new", *arguments)
    assert (code, "there is no autoencoder" in output) == (2, True)


def test_training_refuses_what_latents_cannot_have(data):
    arguments = [f"--data={data}", "--cfg=gat_s2", "-n", *TINY]
    for more, message in (
        (["--mirror=1"], "can't be mirrored"),
        (["--aug=ada"], "colour augmentation is for 1 or 3 channels, these images have 4: choose --augpipe=bg"),
        (["--data=datasets/noto-emoji-32.zip", "--set=G.space.kind=latents"], "holds pictures"),
    ):
        code, output = call(train, *arguments, *more)
        assert code == 2
        assert message in output
    assert call(train, *arguments, "--aug=ada", "--augpipe=bg")[0] == 0


def test_resumed_training_is_bit_identical(data):
    cfg = recipe("gat")
    dataset = open_dataset(data)
    for part in (cfg.G, cfg.D):
        part.img_resolution, part.img_channels = (8, 12), 4
    cfg.G.space = LatentsConfig(**{k: v for k, v in dataset.space.items() if k != "kind"})
    whole, first, second = (Trainer(cfg, open_dataset(data), torch.device("cpu")) for _ in range(3))
    for _ in range(4):
        whole.step()
    for _ in range(2):
        first.step()
    second.load_state(first.state())
    for _ in range(2):
        second.step()
    expected, found = everything(whole), everything(second)
    assert all(torch.equal(value, found[key]) for key, value in expected.items())


@pytest.mark.parametrize(
    "command",
    [
        ["--outdir=OUT", "--seeds=0-1", "--class=1"],
        ["grid", "--out=OUT/x.png", "--seeds=0-1", "--guidance=1.5", "--scale=1"],
        ["mix", "--out=OUT/x.png", "--rows=0", "--cols=1-2", "--class=0"],
        ["attention", "--out=OUT/x.png", "--seed=0", "--class=2"],
        ["count", "--out=OUT/many", "--count=3"],
    ],
)
def test_samples_are_decoded(run, command, tmp_path):
    (tmp_path / "out").mkdir()
    arguments = [a.replace("OUT", str(tmp_path / "out")) for a in command]
    at = 0 if command[0].startswith("--") else 1
    code, output = call(generate, *arguments[:at], f"--network={network(run)}", *arguments[at:])
    assert code == 0, output
    found = sorted((tmp_path / "out").rglob("*.png"))
    assert found
    if at == 0 or command[0] == "count":
        assert {Image.open(f).size for f in found} == {(24, 16)}


def test_a_missing_or_another_autoencoder_is_one_line(run, data, tmp_path, monkeypatch):
    sample = [generate, f"--network={network(run)}", f"--outdir={tmp_path}/out", "--seeds=0", "--class=1"]
    measure = [calc_metrics, f"--network={network(run)}", "--metrics=kid1k_lite0", "--gpus=1"]
    for place, message in (
        ("/nowhere", "no config.json"),
        (save_autoencoder(tmp_path / "b", seed=1), "another autoencoder"),
    ):
        monkeypatch.setenv(autoencoder.PLACE_VARIABLE, str(place))
        for program, *arguments in (sample, measure):
            code, output = call(program, *arguments)
            assert code == 2
            assert message in output
    assert not list((tmp_path / "out").glob("*.png"))


def test_the_official_networks_decode_with_the_autoencoder_that_is_named(vae, tmp_path, monkeypatch):
    """Their files name none. Stable Diffusion's makes pictures eight times as large as latents."""
    official = official_files.unpack("official_gat.pt", tmp_path)
    sample = [f"--network={official}", f"--outdir={tmp_path}/out", "--seeds=0", "--class=1", "--trunc=0.7"]
    code, output = call(generate, *sample)
    assert (code, "names no autoencoder: STYLELOOM_AUTOENCODER=FOLDER" in output) == (2, True)
    monkeypatch.setenv(autoencoder.PLACE_VARIABLE, str(vae))
    code, output = call(generate, *sample)
    assert (code, "2 times as large as latents" in output) == (2, True)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    eight = save_autoencoder(tmp_path / "eight", block_out_channels=(4, 4, 4, 8), **blocks)
    monkeypatch.setenv(autoencoder.PLACE_VARIABLE, str(eight))
    assert call(generate, *sample)[0] == 0
    G = networks.load(official)["G_ema"]
    latents = G(latent(G, 0), torch.eye(G.c_dim)[[1]], truncation_psi=0.7)
    with torch.no_grad():
        decoded = original_autoencoder(eight).decode(latents / 0.18215).sample[0]
    expected = (decoded * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    found = np.asarray(Image.open(tmp_path / "out" / "seed0000.png"))
    assert found.shape == (G.img_size[0] * 8, G.img_size[1] * 8, 3)
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_projection_and_baselines_say_that_they_need_pixels(run, data, tmp_path):
    (tmp_path / "x.png").write_bytes(png(PIXELS[0]))
    code, output = call(generate, "project", f"--network={network(run)}", f"--target={tmp_path}/x.png",
                        f"--outdir={tmp_path}/out", "--class=0")  # fmt: skip
    assert code == 2
    assert "project works on pixels" in output
    with pytest.raises(UserError, match="--baseline is fitted to pixels"):
        PCAGaussian(open_dataset(data), 2)


def test_metrics_compare_decoded_pictures(run, data, toys, monkeypatch):
    """With the latents' own data set, and with that of the pictures: both are decoded or pixels, never latents."""
    forward = ToyDetector.forward
    monkeypatch.setattr(
        ToyDetector, "forward", lambda self, x, outputs: forward(self, F.adaptive_avg_pool2d(x.float(), 8), outputs)
    )
    G = networks.load(network(run))["G_ema"]
    latents = open_dataset(data, use_labels=True)
    found = compute_metrics(["kid10_toy"], G, latents)[0]
    assert np.isfinite(list(found.results.values())).all()
    pixels = open_dataset(data.with_name("pictures.zip"), use_labels=True)
    again = compute_metrics(["kid10_toy"], G, pixels)[0]
    assert again.results != found.results
    with pytest.raises(UserError, match="the network makes images of 3 channels, the data set grey has 1"):
        compute_metrics(
            ["kid10_toy"], G, open_dataset(dataset_zip(data.with_name("grey.zip"), PIXELS[..., :1], LABELS), True)
        )
