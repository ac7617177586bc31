"""Damaged input of every kind ends in a data set or in one line that says why not, and touches nothing else."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import nasty_files
from support.dataset_samples import add_file, cifar10_tar, dataset_zip, idx_files, pictures, png, stl10_tar, write_zip

from dnnlib import UserError
from training.conversion.convert import ConvertOptions, convert
from training.conversion.inspection import describe, inspect_source
from training.conversion.sources import open_source
from training.conversion.transforms import Transform
from training.dataset import open_dataset

FEW, MANY = 120, 1000
EXTREMES = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\x80")
PICTURES = ("picture", "16", "palette", "rotated", "srgb", "cmyk")  # these are converted as a folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> dict[str, bytes]:
    """file name -> content of a good small file of each kind."""
    folder = tmp_path_factory.mktemp("corpus")
    small = pictures(3, 8, 8)
    dataset_zip(folder / "set.zip", small, [0, 1, 0])
    write_zip(folder / "packed.zip", {f"{i}/p.png": png(p) for i, p in enumerate(small)}, packed=True)
    nasty_files.nasty_tar(folder / "files.tar")
    with tarfile.open(folder / "files.tar.gz", "w:gz") as tar:
        for i, pixels in enumerate(small):
            add_file(tar, f"x/{i}.png", png(pixels))
            add_file(tar, f"x/{i}.cls", b"1")
    cifar10_tar(folder / "cifar.tar.gz", pictures(6), [0, 1, 2, 3, 4, 5], test=1)
    with tarfile.open(folder / "cifar.tar.gz") as packed, tarfile.open(folder / "cifar.tar", "w") as plain:
        for member in packed:
            plain.addfile(member, packed.extractfile(member) if member.isreg() else None)
    stl10_tar(folder / "stl.tar.gz", {"train": pictures(1, 96, 96), "unlabeled": pictures(1, 96, 96)}, {"train": [1]})
    idx_files(folder, "train", pictures(3, 28, 28, 1)[..., 0], None)
    image = Image.fromarray(nasty_files.smooth(24, 24))
    for kind in ("png", "jpeg", "webp", "gif", "tiff", "bmp", "ppm"):
        image.save(folder / f"picture.{kind}")
    for name, (content, _) in nasty_files.wanted_files().items():
        if name.startswith(PICTURES):
            (folder / name).write_bytes(content)
    _write_parquet(folder / "table.parquet", small)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def _write_parquet(path: Path, images: np.ndarray) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    cells = [{"bytes": png(image), "path": None} for image in images]
    parquet.write_table(pyarrow.table({"image": cells, "label": [0, 1, 0]}), path)


def mutate(data: bytes, random: np.random.RandomState) -> bytes:
    """One to five changes: a byte, a run of bytes moved, cut out or put in, the end cut off, a number made extreme."""
    content = bytearray(data)
    for _ in range(random.randint(1, 6)):
        at = random.randint(0, max(len(content), 1))
        size = int(2 ** random.uniform(0, 9))
        change = random.randint(6)
        if change == 0:
            content[at : at + 1] = random.bytes(1)
        elif change == 1:
            del content[at : at + size]
        elif change == 2:
            content[at:at] = random.bytes(size)
        elif change == 3:
            start = random.randint(0, max(len(content), 1))
            content[at : at + size] = content[start : start + size]
        elif change == 4:
            del content[at:]
        else:
            content[at : at + 4] = EXTREMES[random.randint(len(EXTREMES))]
    return bytes(content)


def attempt(path: Path, dest: Path) -> str:
    """Inspects and converts; -> the error message, empty if there was none."""
    try:
        source = open_source(str(path))
        list(describe(inspect_source(source), source.classes))
        options = ConvertOptions(Transform((8, 8)))
        convert(source, str(dest), options, lambda *_: None, progress=False)
    except UserError as e:
        return str(e)
    dataset = open_dataset(dest)
    dataset.load(range(len(dataset)))
    return ""


def fuzz(corpus: dict[str, bytes], folder: Path, count: int) -> dict[str, int]:
    outcomes = {"converted": 0, "refused": 0}
    names = list(corpus)
    for number in range(count):
        random = np.random.RandomState(number)
        name = names[number % len(names)]
        work = folder / str(number)
        source = work / "in" / name if name.startswith(PICTURES) else work / name
        source.parent.mkdir(parents=True)
        source.write_bytes(mutate(corpus[name], random))
        before = {p for p in folder.parent.rglob("*") if p.is_file()}
        refusal = attempt(source if source.parent == work else source.parent, work / "o.zip")
        assert "\n" not in refusal
        outcome = "refused" if refusal else "converted"
        outcomes[outcome] += 1
        left = {p for p in folder.parent.rglob("*") if p.is_file()} - before
        assert left == ({work / "o.zip"} if outcome == "converted" else set())
        if name.endswith(".zip"):
            assert "\n" not in read_directly(source)
        for path in sorted(work.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        work.rmdir()
    return outcomes


def read_directly(path: Path) -> str:
    """Reads a zip as training does; -> the error message, empty if there was none."""
    try:
        dataset = open_dataset(path, use_labels=True)
        dataset.load(range(len(dataset)))
        dataset.content_hash()
    except UserError as e:
        return str(e)
    return ""


def test_a_few_damaged_inputs(corpus, tmp_path):
    outcomes = fuzz(corpus, tmp_path / "work", FEW)
    assert min(outcomes.values()) > FEW // 10, "mutations that nothing or everything survives test nothing"


@pytest.mark.soak
def test_a_thousand_damaged_inputs(corpus, tmp_path):
    outcomes = fuzz(corpus, tmp_path / "work", MANY)
    assert sum(outcomes.values()) == MANY


def test_the_undamaged_corpus_converts(corpus, tmp_path):
    for number, (name, content) in enumerate(corpus.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / name).write_bytes(content)
        single = name.endswith((".zip", ".tar", ".gz", ".parquet"))
        assert attempt(folder / name if single else folder, tmp_path / f"{number}.zip") == "", name
