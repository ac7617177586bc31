"""Walks and videos: the curve, the frames as written, what is missing."""

import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from support.small_generators import network_file, small_generator

import generate
from dnnlib import UserError
from training.sampling.pictures import enlarged, to_pil
from training.sampling.seeds import images_of_styles, styles_of_seeds
from training.sampling.video import write_video
from training.sampling.walks import grid_frames, walk_frames, walk_styles


def test_a_loop_passes_through_its_stations_and_closes_smoothly():
    ws = torch.randn(4, 3, 5, dtype=torch.float64)
    path = walk_styles(ws, 50)
    assert path.shape == (200, 3, 5)
    torch.testing.assert_close(path[::50], ws)
    closed = torch.cat([path, path[:3]])
    speed = closed.diff(dim=0)
    bend = speed.diff(dim=0)
    assert bend.abs().max() < 6 * bend.abs().mean() + 0.05  # no kink anywhere, the seam included
    seam = bend[197:200].abs().max()
    assert seam <= bend.abs().max()


def test_an_open_walk_ends_at_its_last_station():
    ws = torch.randn(3, 2, 4)
    path = walk_styles(ws, 7, loop=False)
    assert len(path) == 15
    torch.testing.assert_close(path[::7], ws)


def test_a_single_station_is_refused():
    with pytest.raises(UserError, match="two seeds"):
        walk_styles(torch.randn(1, 2, 4), 5)


def frames_of(G, scale, frames=4):
    total, images = walk_frames(G, [1, 2, 3], torch.zeros(1, 0), frames)
    pictures = [enlarged(to_pil(image), scale) for image in images]
    assert len(pictures) == total
    return pictures


def test_frames_are_the_generators_images():
    G = small_generator()
    c = torch.zeros(1, 0)
    _, images = walk_frames(G, [5, 8, 2], c, 3, psi=0.7)
    expected = images_of_styles(G, walk_styles(styles_of_seeds(G, [5, 8, 2], c, 0.7), 3))
    assert torch.equal(torch.stack(list(images)), expected)


def test_a_grid_shows_a_walk_in_each_cell():
    G = small_generator()
    c = torch.zeros(1, 0)
    total, frames = grid_frames(G, list(range(12)), (3, 2), c, 4)
    found = torch.stack(list(frames))
    assert found.shape == (total, 3, 2 * 32, 3 * 32)
    for cell in range(6):
        _, own = walk_frames(G, [2 * cell, 2 * cell + 1], c, 4)
        y, x = cell // 3 * 32, cell % 3 * 32
        assert torch.equal(found[:, :, y : y + 32, x : x + 32], torch.stack(list(own)))
    with pytest.raises(UserError, match="5 stations can't be shared out over 2 walks evenly"):
        grid_frames(G, list(range(5)), (2, 1), c, 4)


def test_the_command_writes_a_grid(tmp_path):
    net = network_file(tmp_path, small_generator())
    command = ["walk", f"--network={net}", f"--out={tmp_path}/w.gif", "--frames=2", "--random=2"]
    done = CliRunner().invoke(generate.main, [*command, "--grid=3x2"])
    assert done.exit_code == 0, done.output
    assert len(done.output.partition("--seeds=")[2].split(",")) == 12
    with Image.open(tmp_path / "w.gif") as gif:
        assert gif.size == (3 * 64, 2 * 64)
    for grid in ("0x2", "3", "axb"):
        done = CliRunner().invoke(generate.main, [*command, f"--grid={grid}"])
        assert (done.exit_code, done.stderr) == (2, f"Error: --grid={grid}: columns and rows, such as 4x2\n")


def test_decoded_mp4_shows_the_generators_frames(tmp_path):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    pictures = frames_of(small_generator(), 8)
    write_video(tmp_path / "walk.mp4", iter(pictures), fps=10, loop=True)
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "walk.mp4"))
    meta = next(reader)
    assert meta["size"] == (256, 256)
    assert meta["fps"] == 10
    decoded = [np.frombuffer(frame, np.uint8).reshape(256, 256, 3) for frame in reader]
    assert len(decoded) == len(pictures)
    own = [np.asarray(p) for p in pictures]
    for i, frame in enumerate(decoded):
        errors = [np.abs(frame.astype(int) - other.astype(int)).mean() for other in own]
        assert np.argmin(errors) == i
        assert errors[i] < 4  # 1.2 measured; chroma has half the resolution in common H.264
    assert [p.name for p in tmp_path.iterdir()] == ["walk.mp4"]


def test_gif_holds_all_frames_and_loops(tmp_path):
    pictures = frames_of(small_generator(), 2)
    write_video(tmp_path / "walk.gif", iter(pictures), fps=20, loop=True)
    with Image.open(tmp_path / "walk.gif") as gif:
        assert gif.info["loop"] == 0
        assert gif.info["duration"] == 50
        assert gif.n_frames == len(pictures)
        for i, expected in enumerate(pictures):
            gif.seek(i)
            difference = np.abs(np.asarray(gif.convert("RGB"), int) - np.asarray(expected, int))
            assert difference.mean() < 10  # 256 colours for a noisy picture: 6.5 measured


def test_without_imageio_ffmpeg_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UserError, match=r"styleloom\[video\]"):
        write_video(tmp_path / "walk.mp4", [], fps=10, loop=True)


def test_other_suffixes_and_places_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"\.mp4 or \.gif"):
        write_video(tmp_path / "walk.avi", [], fps=10, loop=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the video"):
        write_video(tmp_path / "file" / "walk.gif", frames_of(small_generator(), 1, 1), fps=10, loop=True)
