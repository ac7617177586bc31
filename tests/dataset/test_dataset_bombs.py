"""Small files that unpack to far more, or keep a reader busy: refused or left out, in little memory."""

import gzip
import io
import json
import pickle
import resource
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from support.dataset_samples import add_file, idx_files, pictures, png, read_dataset_zip

from dnnlib import UserError
from training.conversion.convert import ConvertOptions, convert
from training.conversion.sources import open_source
from training.conversion.sources.tar_access import members, open_tar

ROOT = Path(__file__).parents[2]
MEMORY = 900 << 20  # bytes of address space, several times what the data tool needs


def run(source, dest) -> tuple[np.ndarray, dict[str, str]]:
    skipped: dict[str, str] = {}
    convert(open_source(str(source)), str(dest), ConvertOptions(), skipped.__setitem__, progress=False)
    return read_dataset_zip(dest)[0], skipped


def in_little_memory(source: Path) -> str:
    """What the data tool says when it may not take more than MEMORY; it must end by itself with status 2."""
    command = [sys.executable, str(ROOT / "dataset_tool.py"), f"--source={source}", f"--dest={source}.out.zip",
               "--num-workers=1"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)))  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def header(kind: bytes, size: int, name: str = "././@LongLink") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def tar_bombs() -> dict[str, bytes]:
    """name -> a tar whose headers are the trouble."""
    records = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"  # then the map of pieces stands before the data
    sparse = header(tarfile.XHDTYPE, len(records)) + records.ljust(512, b"\0")
    return {
        "nested": (header(tarfile.GNUTYPE_LONGNAME, 2) + b"a\0".ljust(512, b"\0")) * 5000,
        "long name": header(tarfile.GNUTYPE_LONGNAME, 100 << 20) + bytes(100 << 20),
        "pax": header(tarfile.XHDTYPE, 60 << 20) + b"20 path=aaaaaaaaaaa\n" * ((60 << 20) // 20),
        "sparse map": sparse + header(tarfile.REGTYPE, 60 << 20, "x.png") + b"30000000\n" + b"0\n" * (30 << 20),
    }


@pytest.mark.parametrize("bomb", tar_bombs())
def test_tar_headers_without_end_are_refused(tmp_path, bomb):
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(tar_bombs()[bomb] + bytes(1024), 1))
    assert "not a readable tar archive" in in_little_memory(tmp_path / "b.tar.gz")


def test_sparse_members_of_a_tar_are_left_out(tmp_path):
    info = tarfile.TarInfo("big.png")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 0
    sparse = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    sparse[386:410] = b"%011o\0%011o\0" % (0, 0)  # the first piece of data: none
    sparse[483:495] = b"%011o\0" % (200 << 20)  # the size that it unpacks to
    sparse[148:156] = b" " * 8
    sparse[148:156] = b"%06o\0 " % sum(sparse)
    good = io.BytesIO()
    with tarfile.open(fileobj=good, mode="w") as tar:
        add_file(tar, "good.png", png(pictures(1)[0]))
    (tmp_path / "s.tar").write_bytes(bytes(sparse) + good.getvalue())
    with open_tar(str(tmp_path / "s.tar")) as tar:
        assert next(members(tar)).size == 200 << 20
    got, skipped = run(tmp_path / "s.tar", tmp_path / "o.zip")
    assert len(got) == 1
    assert "sparse" in skipped["s.tar/big.png"]


def test_thousands_of_pictures_of_one_key_are_not_held_together(tmp_path):
    """Each is given out when it is known that they are no sample; so memory is that of a few."""
    images = pictures(40, 8, 8)
    with tarfile.open(tmp_path / "k.tar", "w") as tar:
        for i, image in enumerate(images):
            add_file(tar, f"key.view-{i:02d}.png", png(image))
    got, skipped = run(tmp_path / "k.tar", tmp_path / "o.zip")
    np.testing.assert_array_equal(got, images)
    assert not skipped
    items = open_source(str(tmp_path / "k.tar")).items()
    first = next(items)
    assert first.name == "k.tar/key.view-00.png"


def test_a_gzipped_label_file_of_4_gigabytes_is_refused(tmp_path):
    idx_files(tmp_path, "train", pictures(3, 28, 28, 1)[..., 0], [3, 1, 4])
    labels = struct.pack(">2I", 0x801, 2**32 - 1) + bytes(64 << 20)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels, 1))
    assert "4294967295 labels for 3 pictures" in in_little_memory(tmp_path)


def cifar_bombs() -> dict[str, bytes]:
    """name -> a pickle that makes more than it is."""
    shared = b"}(U\x04data]q\x00" + b"(" + b"h\x00" * 1000 + b"e" + b"u."
    doubling = b"]" + b"".join(b"q%c](h%ch%ce" % (i, i, i) for i in range(60)) + b"."
    return {
        "shared lists": shared,
        "doubling lists": doubling,
        "encoded again and again": b"\x80\x02}(U\x04data](X\x00\x00\x10\x00" + b"a" * (1 << 20) + b"q\x000"
        + b"c_codecs\nencode\nq\x010" + b"h\x01h\x00U\x06latin1\x86R" * 2000 + b"eu.",
        "opcodes": b"]" + b"K\x00a" * 600_000 + b".",
        "long integer": b"\x8b\x00\x00\x00\x10" + b"\1" * (1 << 28),
    }  # fmt: skip


@pytest.mark.parametrize("bomb", cifar_bombs())
def test_cifar_pickles_that_grow_are_refused(tmp_path, bomb):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["x"] * 10}, 2))
    (folder / "data_batch_1").write_bytes(cifar_bombs()[bomb])
    assert "is not the cifar-10-batches-py data set" in in_little_memory(folder)


def test_a_parquet_column_that_grows_is_refused(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"image": [bytes(200 << 20)]})
    parquet.write_table(table, tmp_path / "b.parquet", compression="zstd")
    assert "which no pictures do" in in_little_memory(tmp_path / "b.parquet")


def test_parquet_rows_that_share_a_large_value_are_read_one_by_one(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    large = png(pictures(1)[0]) + bytes(60 << 20)  # the picture and much behind it
    parquet.write_table(pyarrow.table({"image": [large] * 32}), tmp_path / "b.parquet", compression="zstd")
    code = f"""
import resource, sys
from training.conversion.sources import open_source
items = open_source({str(tmp_path / "b.parquet")!r}).items()
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))  # 32 of them are 1.9 GB
print(sum(len(item.picture.data) for item in items) == 32 * {len(large)})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.stdout.strip() == "True", done.stderr


def test_nested_metadata_of_a_parquet_table_name_no_classes(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"image": [png(pictures(1)[0])], "label": [1]})
    table = table.replace_schema_metadata({"huggingface": "[" * 100_000})
    parquet.write_table(table, tmp_path / "b.parquet")
    assert open_source(str(tmp_path / "b.parquet")).classes == []


@pytest.mark.parametrize("keep", [0, 100, 8192, 20_000])
def test_a_truncated_lmdb_is_refused_instead_of_killing_the_process(tmp_path, keep):
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(tmp_path), map_size=1 << 24) as database, database.begin(write=True) as transaction:
        for i, image in enumerate(pictures(8)):
            transaction.put(b"%d" % i, png(image))
    with open(tmp_path / "data.mdb", "r+b") as f:
        f.truncate(keep)
    assert "data.mdb" in in_little_memory_of_lmdb(tmp_path)


def in_little_memory_of_lmdb(folder: Path) -> str:
    """In a process of its own, for SIGBUS would end this one."""
    command = [sys.executable, "dataset_tool.py", f"--source={folder}", f"--dest={folder}.zip", "--num-workers=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert done.stderr.startswith("Error: ")
    return done.stderr.replace("LMDB folder", "data.mdb")


def test_labels_beside_a_picture_are_read_from_a_table_of_metadata(tmp_path):
    for value, expected in ((3, [3]), (0.5, [[0.5]]), ("a caption", None), ([1, 2], None)):
        with tarfile.open(tmp_path / "l.tar", "w") as tar:
            add_file(tar, "0.png", png(pictures(1)[0]))
            add_file(tar, "0.json", json.dumps({"label": value}).encode())
        run(tmp_path / "l.tar", tmp_path / "o.zip")
        assert read_dataset_zip(tmp_path / "o.zip")[1] == expected


def test_an_error_in_reading_the_source_is_not_blamed_on_the_destination(tmp_path):
    source = open_source(str(idx_files(tmp_path, "train", pictures(3, 28, 28, 1)[..., 0], None)))
    (tmp_path / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(UserError, match="can't read the source any further"):
        convert(source, str(tmp_path / "o.zip"), ConvertOptions(), lambda *_: None, progress=False)
    assert not (tmp_path / "o.zip").exists()
