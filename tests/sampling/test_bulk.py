"""Many images: right ones, resumed after a kill without duplicates, a data set in the end."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.small_generators import network_file, small_generator

from dnnlib import UserError
from training.conversion.png import image_name
from training.dataset import open_dataset
from training.sampling.bulk import Job, generate_many
from training.sampling.seeds import class_label, image_of_seed

ROOT = Path(__file__).parents[2]


def job(**changes) -> Job:
    return Job(**{"network": "n", "count": 10, **changes})


def read(path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)


def assert_same_images(folder, G, count, first_seed=0, psi=1.0):
    for i in range(count):
        expected = image_of_seed(G, first_seed + i, torch.zeros(1, 0), psi)
        assert (read(folder / image_name(i)).int() - expected.int()).abs().max() <= 1


def test_a_folder_of_images_by_seed(tmp_path):
    G = small_generator()
    done = []
    assert generate_many(G, job(first_seed=5, psi=0.5), str(tmp_path / "out"), 4, done.append) == 0
    assert sum(done) == 10
    assert_same_images(tmp_path / "out", G, 10, first_seed=5, psi=0.5)
    assert len(list((tmp_path / "out").rglob("*.png"))) == 10


def test_a_stopped_run_goes_on_with_what_is_missing(tmp_path):
    G, out = small_generator(), tmp_path / "out"
    generate_many(G, job(count=6), str(out), 4)
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*.png")}
    (out / image_name(2)).unlink()
    (out / "00000" / "img00000007.png.partial").write_bytes(b"half")
    assert generate_many(G, job(count=9), str(out), 4) == 5
    assert_same_images(out, G, 9)
    assert len([p for p in times if p.exists() and p.stat().st_mtime_ns == times[p]]) == 5
    assert not list(out.rglob("*.partial"))


def test_a_killed_run_continues_without_duplicates(tmp_path):
    net, out = network_file(tmp_path, small_generator()), tmp_path / "fakes.zip"
    command = [sys.executable, "generate.py", "count", f"--network={net}", "--count=3000", "--batch=8", f"--out={out}"]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})
    staging = tmp_path / "fakes.zip.partial"
    while len(list(staging.rglob("*.png"))) < 40:
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    _wait_until_quiet(staging)
    made = {p: p.stat().st_ino for p in staging.rglob("*.png")}
    target = len(made) + 20
    with pytest.raises(UserError, match="ask for no fewer"):
        generate_many(small_generator(), _job_of(staging, 10), str(out), 8)
    begun = _job_of(staging, 3000)
    (staging / "sampling.json").write_text(json.dumps(vars(begun) | {"count": target}))
    assert generate_many(small_generator(), _job_of(staging, target), str(out), 8) == len(made)
    with zipfile.ZipFile(out) as archive:
        names = archive.namelist()
        assert names == [image_name(i) for i in range(target)]
        assert archive.testzip() is None
        assert len({archive.read(name) for name in names}) == target
    assert not staging.exists()
    images, _ = open_dataset(str(out)).load(np.arange(target))
    G = small_generator()
    for i in (0, len(made) - 1, len(made), target - 1):
        assert (images[i].int() - image_of_seed(G, i, torch.zeros(1, 0)).int()).abs().max() <= 1


def _wait_until_quiet(folder: Path) -> None:
    """The writing process ends by itself, after what was in the pipe."""
    before = -1
    while (now := len(list(folder.rglob("*.png")))) != before:
        before = now
        time.sleep(1)


def test_a_failing_writer_is_one_line(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sampling.json").write_text(json.dumps(vars(job())))
    (tmp_path / "out" / "00000").write_text("a file where a folder should be")
    with pytest.raises(UserError, match="cannot write to .*File exists"):
        generate_many(small_generator(), job(), str(tmp_path / "out"), 4)


def _job_of(folder: Path, count: int) -> Job:
    return Job(**json.loads((folder / "sampling.json").read_text()) | {"count": count})


def test_a_conditional_network_gives_a_labelled_data_set(tmp_path):
    G = small_generator(c_dim=3)
    generate_many(G, job(count=7), str(tmp_path / "fakes.zip"), 4)
    dataset = open_dataset(str(tmp_path / "fakes.zip"), use_labels=True)
    images, labels = dataset.load(np.arange(7))
    assert labels.argmax(1).tolist() == [0, 1, 2, 0, 1, 2, 0]
    for i in range(7):
        expected = image_of_seed(G, i, class_label(G, i % 3))
        assert (images[i].int() - expected.int()).abs().max() <= 1
    generate_many(G, job(count=4, class_index=2), str(tmp_path / "twos"), 4)
    assert {label for _, label in json.loads((tmp_path / "twos/dataset.json").read_text())["labels"]} == {2}


def test_places_that_hold_something_else_are_refused(tmp_path):
    G = small_generator()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="other files"):
        generate_many(G, job(), str(tmp_path / "mine"), 4)
    generate_many(G, job(count=2), str(tmp_path / "out"), 4)
    with pytest.raises(UserError, match="another psi"):
        generate_many(G, job(count=2, psi=0.5), str(tmp_path / "out"), 4)
    (tmp_path / "there.zip").write_text("")
    with pytest.raises(UserError, match="exists already"):
        generate_many(G, job(), str(tmp_path / "there.zip"), 4)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        generate_many(G, job(), str(tmp_path / "file" / "out"), 4)
    with pytest.raises(UserError, match="unconditional"):
        generate_many(G, job(class_index=0), str(tmp_path / "new"), 4)
    assert not (tmp_path / "new").exists()


def test_threads_that_come_later_have_all_cores_again(tmp_path):
    """Also after a failure. The parts of a batch run with fewer threads each, and torch remembers the last number."""

    def fails(images):
        if images:  # the first call only says how many were there already
            raise OSError("disk full")

    def cores_of_a_new_thread() -> int:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(torch.get_num_threads).result()

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(UserError, match="disk full"):
            generate_many(small_generator(), job(), str(tmp_path / "out"), 4, fails)
        assert cores_of_a_new_thread() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"[" * 99_999, b'{"count": "x"}'])
def test_a_damaged_job_file_is_a_line(content, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sampling.json").write_bytes(content)
    with pytest.raises(UserError, match=r"sampling\.json") as e:
        generate_many(small_generator(), job(), str(tmp_path / "out"), 4)
    assert "\n" not in str(e.value)


def count_at_once(folder: Path, pairs: int) -> None:
    """Pairs of processes that fill one zip: one wins, the other is refused or comes too late; the zip is whole."""
    G = small_generator()
    for i in range(pairs):
        out = folder / f"fakes{i}.zip"
        pids = []
        for _ in range(2):
            pid = os.fork()
            if pid == 0:
                torch.set_num_threads(1)
                try:
                    generate_many(G, job(count=6), str(out), 2)
                except UserError as e:
                    os._exit(2 if "another process" in str(e) or "exists already" in str(e) else 1)
                except BaseException:
                    os._exit(1)
                os._exit(0)
            pids.append(pid)
        ends = sorted(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids)
        assert ends == [0, 2], f"pair {i}: {ends}"
        assert len(open_dataset(str(out))) == 6
    assert len(list(folder.iterdir())) == pairs, "nothing else is left"


def test_two_at_once_do_not_mix(tmp_path):
    count_at_once(tmp_path, 2)


@pytest.mark.soak
def test_100_pairs_at_once_do_not_mix(tmp_path):
    count_at_once(tmp_path, 100)
