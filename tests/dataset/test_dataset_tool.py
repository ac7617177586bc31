"""dataset_tool.py as its users run it: a process, its messages, its exit status, what it leaves behind."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import nasty_files
from support.dataset_samples import cifar10_tar, dataset_zip, pictures, png, read_dataset_zip

from dnnlib import UserError
from training.conversion import destination
from training.conversion.destination import open_destination
from training.conversion.png import encode_png
from training.dataset import open_dataset

ROOT = Path(__file__).parents[2]


def tool(*args: object, cwd: Path | None = None, **kwargs) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "dataset_tool.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120, **kwargs)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i, pixels in enumerate(pictures(12, 40, 60)):
        (folder / f"{i:02d}.png").write_bytes(png(pixels))
    return folder


def test_cifar10_becomes_a_data_set_that_opens(tmp_path):
    images, labels = pictures(12), [i % 10 for i in range(12)]
    cifar10_tar(tmp_path / "cifar-10-python.tar.gz", images, labels, test=2)
    done = tool("--source=cifar-10-python.tar.gz", "--dest=datasets/cifar10.zip", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "10 images of 32x32 RGB in datasets/cifar10.zip, with labels" in done.stdout
    dataset = open_dataset(tmp_path / "datasets/cifar10.zip", use_labels=True)
    got, one_hot = dataset.load(range(10))
    np.testing.assert_array_equal(got.numpy(), images[:10].transpose(0, 3, 1, 2))
    assert one_hot.argmax(1).tolist() == labels[:10]


@pytest.mark.parametrize("resize_filter", ["box", "lanczos"])
@pytest.mark.parametrize("transform", [None, "center-crop", "center-crop-wide", "fit-pad"])
def test_transforms_and_filters_as_pillow_does_them(tmp_path, photos, transform, resize_filter):
    size = (30, 16)
    args = [f"--transform={transform}"] if transform else []
    done = tool(f"--source={photos}", f"--dest={tmp_path}/o.zip", "--width=30", "--height=16", "--background=#204060",
                f"--resize-filter={resize_filter}", "--max-images=2", "--num-workers=1", *args)  # fmt: skip
    assert done.returncode == 0, done.stderr
    pixels = Image.fromarray(pictures(12, 40, 60)[1])
    how = Image.Resampling[resize_filter.upper()]
    if transform is None:
        expected = pixels.resize(size, how)
    elif transform == "center-crop":
        expected = pixels.crop((10, 0, 50, 40)).resize(size, how)
    elif transform == "center-crop-wide":
        expected = Image.new("RGB", (30, 30))
        expected.paste(pixels.crop((0, 4, 60, 36)).resize(size, how), (0, 7))
    else:
        expected = Image.new("RGB", size, "#204060")
        expected.paste(pixels.resize((24, 16), how), (3, 0))
    np.testing.assert_array_equal(read_dataset_zip(tmp_path / "o.zip")[0][1], np.asarray(expected))


def test_tilde_is_expanded(tmp_path, photos):
    done = tool(f"--source={photos}", "--dest=~/o.zip", "--max-images=1", env={**os.environ, "HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o.zip").exists()


def test_inspect_prints_the_facts_and_draws_a_sheet(tmp_path):
    (tmp_path / "in/cat").mkdir(parents=True)
    (tmp_path / "in/dog").mkdir()
    same = png(pictures(1)[0])
    for name, content in {"cat/0.png": same, "cat/1.png": same, "dog/0.png": png(pictures(1, 8, 9, 1)[0]),
                          "dog/1.png": b"no picture"}.items():  # fmt: skip
        (tmp_path / "in" / name).write_bytes(content)
    done = tool("--source=in", "--inspect", "--folder-labels", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for line in ("pictures: 3, unusable: 1", "sizes: 32x32 (2), 9x8 (1)", "modes: RGB (2), L (1)", "classes: 2",
                 "0 cat: 2", "pixel-identical duplicates: 1", "dog/1.png: not an image file"):  # fmt: skip
        assert line in done.stdout
    sheet = Image.open(tmp_path / "in-contact-sheet.png")
    assert sheet.size == (3 * 100 + 4, 104)
    assert {p.name for p in tmp_path.iterdir()} == {"in", "in-contact-sheet.png"}


def test_skipped_pictures_are_counted_and_listed(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(25):
        (tmp_path / f"in/{i:02d}.png").write_bytes(b"x")
    (tmp_path / "in/good.png").write_bytes(png(pictures(1)[0]))
    done = tool("--source=in", "--dest=o.zip", "--skip-list=skipped.txt", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr.count("skipped") == 20
    assert "25 skipped, listed in skipped.txt" in done.stdout
    lines = (tmp_path / "skipped.txt").read_text().splitlines()
    assert lines == [f"{i:02d}.png: not an image file that can be read" for i in range(25)]


def test_reasons_and_classes_are_summed_up(tmp_path):
    for i, name in enumerate(("cat/0.png", "cat/1.png", "dog/2.png", "empty/readme.txt", "dog/x.png", "dog/a.zip")):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(png(pictures(1)[0]) if i < 3 else b"x")
    done = tool("--source=in", "--dest=o.zip", "--folder-labels", "--resolution=16x8", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "3 images of 16x8 RGB in o.zip, with labels; 3 skipped",
        "  2 skipped: not an image file that can be read",
        "  1 skipped: an archive or table, no picture; give it as --source by itself to convert what it holds",
        "classes: 2",
        "  0 cat: 2",
        "  1 dog: 1",
    ]


def test_what_was_made_of_a_label_file_is_said(tmp_path, photos):
    (tmp_path / "l.csv").write_text("".join(f"{i:02d}.jpg,{i % 2}\n" for i in range(12)) + "extra.jpg,1\n")
    done = tool(f"--source={photos}", "--dest=o.zip", "--label-file=l.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert len(notes) == 2
    assert "matched by their names, without suffix and case" in notes[0]
    assert "labels that fit no picture: 1 of 13, such as extra.jpg" in notes[1]


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_is_one_line_and_status_130(tmp_path, workers):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/first.png").write_bytes(png(pictures(1, 256, 256)[0]))
    for i in range(4000):
        os.link(tmp_path / "in/first.png", tmp_path / f"in/{i:04d}.png")
    command = [sys.executable, str(ROOT / "dataset_tool.py"), "--source=in", "--dest=o.zip", f"--num-workers={workers}"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Tests that run in a shell's background inherit that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    partial = tmp_path / ".o.zip.partial"
    wait_until(lambda: partial.exists() and any(p.stat().st_size for p in partial.rglob("*")))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers, too
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stderr == "interrupted: o.zip is as it was; the same command starts again\n"
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


BAD_INPUT = {
    "no source": (["--source=nowhere", "--dest=o.zip"], "doesn't exist"),
    "nothing to do": (["--source=in"], "either --dest=FILE.zip to convert or --inspect"),
    "both": (["--source=in", "--dest=o.zip", "--inspect"], "either"),
    "half a size": (["--source=in", "--dest=o.zip", "--width=8"], "go together"),
    "crop to what": (["--source=in", "--dest=o.zip", "--transform=center-crop"], "needs --width and --height"),
    "size 0": (["--source=in", "--dest=o.zip", "--width=0", "--height=8"], "0 is not in the range"),
    "unknown transform": (["--source=in", "--dest=o.zip", "--transform=warp"], "'warp' is not one of"),
    "no colour": (["--source=in", "--dest=o.zip", "--background=nice"], "is no colour"),
    "mixed sizes": (["--source=in", "--dest=new/o.zip"], "the pictures differ in size"),
    "wrong dest": (["--source=in", "--dest=o.tar"], "not a .tar file"),
    "full folder": (["--source=in", "--dest=in"], "no empty folder"),
    "shards in a zip": (["--source=in", "--dest=o.zip", "--shard-size=2"], "names a single zip"),
    "width to inspect": (["--source=in", "--inspect", "--width=8"], "--width means nothing with --inspect"),
    "split": (["--source=in", "--dest=o.zip", "--split=test"], "means nothing"),
    "single picture": (["--source=in/0.png", "--dest=o.zip"], "give the folder they are in"),
    "no pictures": (["--source=texts", "--dest=o.zip"], "no image could be converted"),
    "empty folder": (["--source=empty", "--dest=o.zip"], "is empty"),
    "wrong zip": (["--source=fake.zip", "--dest=o.zip"], "not a readable zip"),
    "wrong tar": (["--source=fake.tar.gz", "--dest=o.zip"], "not a readable tar"),
    "label file": (["--source=in", "--dest=o.zip", "--label-file=nowhere.txt"], "can't be read"),
    "empty dest": (["--source=in", "--dest="], "--dest= is empty"),
    "empty source": (["--source=", "--dest=o.zip"], "--source= is empty"),
    "empty label file": (["--source=in", "--dest=o.zip", "--label-file="], "--label-file= is empty"),
    "two sizes": (["--source=in", "--dest=o.zip", "--resolution=8x8", "--width=8"], "give one of them"),
    "no resolution": (["--source=in", "--dest=o.zip", "--resolution=8"], "write it as WxH"),
    "resolution 0": (["--source=in", "--dest=o.zip", "--resolution=0x8"], "write it as WxH"),
    "unwritable list": (["--source=in", "--dest=o.zip", "--skip-list=nowhere/s.txt"], "can't write --skip-list"),
    "full list": (["--source=texts", "--dest=o.zip", "--skip-list=/dev/full"], "can't write --skip-list=/dev/full"),
    "dest in a file": (["--source=in", "--dest=in/0.png/o.zip"], "can't write in/0.png/o.zip"),
    "unwritable sheet": (["--source=in", "--inspect=nowhere/s.png"], "can't write the contact sheet"),
    "no sub-folders": (["--source=in", "--dest=o.zip", "--folder-labels"], "no sub-folders"),
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("workplace")
    for name in ("in", "texts", "empty"):
        (folder / name).mkdir()
    (folder / "in/0.png").write_bytes(png(pictures(1)[0]))
    (folder / "in/1.png").write_bytes(png(pictures(1, 8, 8)[0]))
    (folder / "texts/a.txt").write_text("hello")
    for name in ("fake.zip", "fake.tar.gz"):
        (folder / name).write_text("hello")
    return folder


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_status_2_and_nothing_left(workplace, case):
    args, message = BAD_INPUT[case]
    before = sorted(workplace.rglob("*"))
    done = tool(*args, "--num-workers=1", cwd=workplace)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if not line.startswith("skipped ")]
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith("Error: ")
    assert message in errors[0]
    assert sorted(workplace.rglob("*")) == before


def test_a_full_disk_leaves_the_old_destination(tmp_path, photos):
    old = dataset_zip(tmp_path / "o.zip", pictures(1)).read_bytes()

    def limit() -> None:  # a file may have 20 kB: writing fails as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = tool(f"--source={photos}", f"--dest={tmp_path}/o.zip", "--num-workers=1", preexec_fn=limit)
    assert done.returncode == 2
    assert "no space left" in done.stderr
    assert (tmp_path / "o.zip").read_bytes() == old
    assert os.listdir(tmp_path) == ["o.zip"]
    assert tool(f"--source={photos}", f"--dest={tmp_path}/o.zip").returncode == 0
    assert len(open_dataset(tmp_path / "o.zip")) == 12


def test_no_space_at_the_last_flush_leaves_the_old_destination(tmp_path, monkeypatch):
    old = dataset_zip(tmp_path / "o.zip", pictures(1)).read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(destination.os, "fsync", full)
    with pytest.raises(UserError, match="no space left"), open_destination(str(tmp_path / "o.zip")) as out:
        out.add(encode_png(pictures(1)[0]), None)
    assert (tmp_path / "o.zip").read_bytes() == old
    assert os.listdir(tmp_path) == ["o.zip"]


def test_nothing_is_written_outside_the_destination(tmp_path, photos):
    """A full or read-only folder for temporary files doesn't matter; the destination has to have room anyway."""
    done = tool(f"--source={photos}", f"--dest={tmp_path}/o.zip", "--max-images=2", "--num-workers=1",
                env={**os.environ, "TMPDIR": "/proc/nowhere"}, cwd="/proc")  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dest", ["o.zip", "folder"])
def test_kill_9_in_mid_conversion_leaves_the_old_destination(tmp_path, dest):
    (tmp_path / "in").mkdir()
    content = png(pictures(1, 64, 64)[0])
    for i in range(3000):
        (tmp_path / f"in/{i:04d}.png").write_bytes(content)
    old = dataset_zip(tmp_path / "o.zip", pictures(1)).read_bytes()
    command = [sys.executable, str(ROOT / "dataset_tool.py"), "--source=in", f"--dest={dest}", "--num-workers=1"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    partial = tmp_path / f".{dest}.partial"
    wait_until(lambda: partial.exists() and any(partial.rglob("*")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert partial.exists(), "it was killed before the end"
    assert (tmp_path / "o.zip").read_bytes() == old
    assert not (tmp_path / "folder").exists()
    done = tool("--source=in", f"--dest={dest}", "--max-images=5", "--num-workers=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(open_dataset(tmp_path / dest)) == 5
    assert not partial.exists()


def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/first.png").write_bytes(png(pictures(1, 256, 256)[0]))
    for i in range(4000):
        os.link(tmp_path / "in/first.png", tmp_path / f"in/{i:04d}.png")
    command = [sys.executable, str(ROOT / "dataset_tool.py"), "--source=in", "--dest=o.zip", "--num-workers=2"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_until(lambda: len(children.read_text().split()) >= 3)  # two workers and Python's resource tracker
    workers = [int(pid) for pid in children.read_text().split()]
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_runs_to_one_destination_do_not_mix(tmp_path):
    dest = str(tmp_path / "o.zip")
    with open_destination(dest) as first:
        first.add(encode_png(pictures(1)[0]), None)
        with pytest.raises(UserError, match="another run is writing"), open_destination(dest):
            pass
    assert len(open_dataset(dest)) == 1


def test_a_worker_that_dies_ends_the_conversion_in_one_line(tmp_path):
    (tmp_path / "in").mkdir()
    for name, (content, _) in nasty_files.wanted_files().items():
        (tmp_path / "in" / name).write_bytes(content)
    code = f"""
import os, sys
if __name__ == "__mp_main__":
    os._exit(9)
if __name__ == "__main__":
    import dataset_tool
    sys.argv = ["dataset_tool.py", "--source={tmp_path}/in", "--dest={tmp_path}/o.zip", "--num-workers=2"]
    dataset_tool.main()
"""
    (tmp_path / "dying.py").write_text(code)
    done = subprocess.run([sys.executable, str(tmp_path / "dying.py")], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "a worker process died" in done.stderr
    assert not (tmp_path / "o.zip").exists()


def test_help_shows_every_option():
    done = tool("--help")
    assert done.returncode == 0
    assert "--resize-filter [box|lanczos]" in done.stdout
    assert "python dataset_tool.py --source=cifar-10-python.tar.gz" in done.stdout
