"""Small data sets in the layouts that the field publishes, written from the format descriptions, not by our code."""

import gzip
import io
import json
import pathlib
import struct
import tarfile
import zipfile

import numpy as np
from PIL import Image


def pictures(count: int, height: int = 32, width: int = 32, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Random uint8 [N, H, W, C]."""
    shape = (count, height, width, channels)
    return np.random.RandomState(seed).randint(0, 256, shape, np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """uint8 [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] -> PNG."""
    out = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels).save(out, "png")
    return out.getvalue()


def write_zip(path: pathlib.Path, files: dict[str, bytes], packed: bool = False) -> pathlib.Path:
    """A zip by Python's own writer."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as z:
        for name, data in files.items():
            z.writestr(name, data)
    return path


def dataset_zip(path: pathlib.Path, images: np.ndarray, labels: list | None = None) -> pathlib.Path:
    """A data set zip as the field's tool writes it."""
    names = [f"{i // 1000:05d}/img{i:08d}.png" for i in range(len(images))]
    files = {name: png(image) for name, image in zip(names, images)}
    files["dataset.json"] = json.dumps({"labels": [list(p) for p in zip(names, labels)] if labels else None}).encode()
    return write_zip(path, files)


def read_dataset_zip(path: pathlib.Path) -> tuple[np.ndarray, list | None]:
    """-> uint8 [N, H, W, C] and labels in the order of names, read by zipfile and Pillow alone."""
    with zipfile.ZipFile(path) as z:
        names = sorted(n for n in z.namelist() if n.endswith(".png"))
        images = np.stack([np.asarray(Image.open(io.BytesIO(z.read(n)))) for n in names])
        table = json.loads(z.read("dataset.json"))["labels"]
        assert all(i.compress_type == zipfile.ZIP_STORED for i in z.infolist())
    labels = None if table is None else [dict(table)[n] for n in names]
    return images.reshape(*images.shape[:3], -1), labels


def add_file(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """A regular file in a tar."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def python2_pickle(content: dict[str, object]) -> bytes:
    """What Python 2's cPickle (protocol 2) writes for a dict of uint8 arrays, ints, strings and lists of them."""
    body = b"".join(_pickled(key) + _pickled(value) for key, value in content.items())
    return b"\x80\x02}(" + body + b"u."


def _pickled(value: object) -> bytes:
    if isinstance(value, str):
        raw = value.encode("latin-1")
        return b"U" + bytes([len(raw)]) + raw  # SHORT_BINSTRING
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"](" + b"".join(map(_pickled, value)) + b"e"
    assert isinstance(value, np.ndarray)
    shape = _pickled(value.shape[0]) + _pickled(value.shape[1]) + b"\x86"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    raw = value.tobytes()
    content = b"T" + struct.pack("<i", len(raw)) + raw  # BINSTRING
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return array + b"(K\x01" + shape + dtype + b"\x89" + content + b"tb"


def cifar10_tar(path: pathlib.Path, images: np.ndarray, labels: list[int], test: int) -> pathlib.Path:
    """cifar-10-python.tar.gz of N images [N, 32, 32, 3]: the last `test` in test_batch, the rest in five batches."""
    rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    cuts = [*np.linspace(0, len(images) - test, 6).astype(int), len(images)]
    files = {"batches.meta": python2_pickle({"num_cases_per_batch": 10000, "label_names": names, "num_vis": 3072})}
    for number, (a, b) in enumerate(zip(cuts, cuts[1:])):
        name = f"data_batch_{number + 1}" if number < 5 else "test_batch"
        files[name] = python2_pickle({
            "data": rows[a:b], "labels": list(labels[a:b]), "batch_label": f"batch {number + 1} of 5",
            "filenames": [f"x_{i}.png" for i in range(a, b)],
        })  # fmt: skip
    files["readme.html"] = b"<html></html>"
    official = ("data_batch_4", "readme.html", "test_batch", "data_batch_3", "batches.meta", "data_batch_2",
                "data_batch_5", "data_batch_1")  # fmt: skip
    with tarfile.open(path, "w:gz") as tar:
        folder = tarfile.TarInfo("cifar-10-batches-py")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name in official:
            add_file(tar, f"cifar-10-batches-py/{name}", files[name])
    return path


def cifar100_tar(path: pathlib.Path, images: np.ndarray, fine: list[int]) -> pathlib.Path:
    """cifar-100-python.tar.gz whose train part holds the images."""
    rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    content = {"filenames": ["a.png"] * len(fine), "batch_label": "training batch 1 of 1", "fine_labels": list(fine),
               "coarse_labels": [label // 5 for label in fine], "data": rows}  # fmt: skip
    meta = {"fine_label_names": [f"fine{i}" for i in range(100)], "coarse_label_names": [f"c{i}" for i in range(20)]}
    with tarfile.open(path, "w:gz") as tar:
        for name, data in (("file.txt~", b""), ("train", python2_pickle(content)), ("test", python2_pickle(content)),
                           ("meta", python2_pickle(meta))):  # fmt: skip
            add_file(tar, f"cifar-100-python/{name}", data)
    return path


def stl10_tar(path: pathlib.Path, parts: dict[str, np.ndarray], labels: dict[str, list[int]]) -> pathlib.Path:
    """stl10_binary.tar.gz of images [N, 96, 96, 3] by part; labels 0..9 by part are written as 1..10."""
    with tarfile.open(path, "w:gz") as tar:
        for part, images in parts.items():
            columns = images.transpose(0, 3, 2, 1)  # channel by channel, column by column
            add_file(tar, f"stl10_binary/{part}_X.bin", columns.tobytes())
            if part in labels:
                add_file(tar, f"stl10_binary/{part}_y.bin", bytes(label + 1 for label in labels[part]))
        add_file(
            tar, "stl10_binary/class_names.txt", b"airplane\nbird\ncar\ncat\ndeer\ndog\nhorse\nmonkey\nship\ntruck\n"
        )
        add_file(tar, "stl10_binary/fold_indices.txt", b"0 1\n")
    return path


def idx_files(folder: pathlib.Path, part: str, images: np.ndarray, labels: list[int] | None) -> pathlib.Path:
    """`{part}-images-idx3-ubyte.gz` of [N, H, W] and its labels."""
    head = struct.pack(">4I", 0x803, *images.shape)
    path = folder / f"{part}-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(head + images.tobytes()))
    if labels is not None:
        head = struct.pack(">2I", 0x801, len(labels))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(head + bytes(labels)))
    return path
