"""Every source: a small sample in the published layout converts to the same pixels and labels."""

import io
import json
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image
from support.dataset_samples import (
    add_file,
    cifar10_tar,
    cifar100_tar,
    dataset_zip,
    idx_files,
    pictures,
    png,
    read_dataset_zip,
    stl10_tar,
    write_zip,
)

from dnnlib import UserError
from training.conversion.convert import ConvertOptions, convert
from training.conversion.sources import SourceOptions, open_source
from training.conversion.transforms import Transform
from training.dataset import open_dataset


def run(source, dest, options: SourceOptions | None = None, **convert_options):
    """-> pixels, labels, skipped."""
    skipped: list[tuple[str, str]] = []
    opened = open_source(str(source), options)
    convert(opened, str(dest), ConvertOptions(**convert_options), lambda *skip: skipped.append(skip), progress=False)
    return *read_dataset_zip(dest), skipped


def test_cifar10_pixels_labels_order_and_class_names(tmp_path):
    images, labels = pictures(24), [i % 10 for i in range(24)]
    source = cifar10_tar(tmp_path / "cifar-10-python.tar.gz", images, labels, test=4)
    got, got_labels, skipped = run(source, tmp_path / "c.zip")
    np.testing.assert_array_equal(got, images[:20])
    assert got_labels == labels[:20]
    assert skipped == []
    with zipfile.ZipFile(tmp_path / "c.zip") as z:
        assert json.loads(z.read("dataset.json"))["classes"][3] == "cat"
    both, both_labels, _ = run(source, tmp_path / "both.zip", SourceOptions(split="train+test"))
    np.testing.assert_array_equal(both, images)
    assert both_labels == labels


def test_cifar10_unpacked_folder_equals_the_tar(tmp_path):
    source = cifar10_tar(tmp_path / "c.tar.gz", pictures(12), list(range(10)) + [0, 1], test=2)
    with tarfile.open(source) as tar:
        tar.extractall(tmp_path, filter="data")
    run(source, tmp_path / "a.zip")
    run(tmp_path / "cifar-10-batches-py", tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_cifar_pickles_written_by_python_3(tmp_path, protocol):
    images = pictures(2)
    batch = {"data": images.transpose(0, 3, 1, 2).reshape(2, -1), "fine_labels": [7, 99]}
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as tar:
        add_file(tar, "cifar-100-python/train", pickle.dumps(batch, protocol))
        add_file(tar, "cifar-100-python/meta", pickle.dumps({"fine_label_names": ["x"] * 100}, protocol))
    got, labels, _ = run(tmp_path / "c.tar.gz", tmp_path / "c.zip")
    np.testing.assert_array_equal(got, images)
    assert labels == [7, 99]


def test_cifar100_takes_the_fine_labels(tmp_path):
    images, fine = pictures(5), [0, 99, 42, 7, 7]
    got, labels, _ = run(cifar100_tar(tmp_path / "cifar-100-python.tar.gz", images, fine), tmp_path / "c.zip")
    np.testing.assert_array_equal(got, images)
    assert labels == fine


def test_a_cifar_pickle_that_wants_to_run_something_is_refused_by_name(tmp_path):
    marker = tmp_path / "executed"
    evil = b"cposix\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR."
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as tar:
        for name in ("batches.meta", "data_batch_1"):
            add_file(tar, f"cifar-10-batches-py/{name}", evil)
    with pytest.raises(UserError, match="refusing to load posix.system"):
        run(tmp_path / "c.tar.gz", tmp_path / "c.zip")
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cnumpy.core.multiarray\n_reconstruct\n)R.",
        b"}(U\x04datacnumpy.core.multiarray\n_reconstruct\n)Ru.",
        b"}(U\x04datacnumpy.core.multiarray\n_reconstruct\n)RK\x05bu.",
        b"(lp0\n.",
        b"",
        b"}(U\x04dataK\x01U\x06labelsK\x01u.",
        pickle.dumps({"data": np.zeros((2, 3072), np.float32), "labels": [0, 1], "label_names": []}, 2),
        pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0], "label_names": []}, 2),
        pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [-1], "label_names": []}, 2),
    ],
)
def test_a_wrong_cifar_pickle_is_one_line(tmp_path, content):
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as tar:
        for name in ("batches.meta", "data_batch_1"):
            add_file(tar, f"cifar-10-batches-py/{name}", content)
    with pytest.raises(UserError, match="is not the cifar-10-batches-py data set"):
        run(tmp_path / "c.tar.gz", tmp_path / "c.zip")


def test_stl10_columns_become_rows_and_labels_start_at_0(tmp_path):
    parts = {"test": pictures(2, 96, 96, seed=1), "train": pictures(3, 96, 96, seed=2),
             "unlabeled": pictures(4, 96, 96, seed=3)}  # fmt: skip
    source = stl10_tar(tmp_path / "stl10_binary.tar.gz", parts, {"train": [0, 9, 4], "test": [1, 2]})
    got, labels, _ = run(source, tmp_path / "s.zip")
    np.testing.assert_array_equal(got, np.concatenate([parts["train"], parts["unlabeled"]]))
    assert labels is None
    got, labels, _ = run(source, tmp_path / "t.zip", SourceOptions(split="train+test"))
    np.testing.assert_array_equal(got, np.concatenate([parts["train"], parts["test"]]))
    assert labels == [0, 9, 4, 1, 2]


def test_celeba_zip_crop_and_attributes(tmp_path):
    images = pictures(3, 218, 178)
    names = [f"{i + 1:06d}.jpg" for i in range(3)]
    jpegs = {}
    for name, image in zip(names, images):
        out = io.BytesIO()
        Image.fromarray(image).save(out, "jpeg", quality=95)
        jpegs[f"img_align_celeba/{name}"] = out.getvalue()
    source = write_zip(tmp_path / "img_align_celeba.zip", jpegs, packed=True)
    lines = [
        "3",
        "5_o_Clock_Shadow Male Young",
        *(f"{n}  {a}" for n, a in zip(names, ("1 -1  1", "-1 -1 -1", "1  1 1"))),
    ]
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    got, labels, _ = run(
        source, tmp_path / "c.zip", SourceOptions(label_file=str(tmp_path / "list_attr_celeba.txt")),
        transform=Transform((64, 64), "center-crop"),
    )  # fmt: skip
    for name, pixels in zip(names, got):
        whole = Image.open(io.BytesIO(jpegs[f"img_align_celeba/{name}"]))
        square = whole.crop((0, 20, 178, 198)).resize((64, 64), Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(pixels, np.asarray(square))
    assert labels == [[1, 0, 1], [0, 0, 0], [1, 1, 1]]


def test_identity_file_gives_classes(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(3):
        (tmp_path / f"in/{i}.png").write_bytes(png(pictures(1, seed=i)[0]))
    (tmp_path / "identity_CelebA.txt").write_text("0.png 5\n1.png 0\n2.png 2880\n")
    _, labels, _ = run(tmp_path / "in", tmp_path / "o.zip", SourceOptions(label_file=f"{tmp_path}/identity_CelebA.txt"))
    assert labels == [5, 0, 2880]
    (tmp_path / "l.csv").write_text("file,class\n0.png,dog\n1.png,cat\n2.png,dog\n")
    (tmp_path / "in/3.png").write_bytes(png(pictures(1)[0]))
    with pytest.raises(UserError, match="label all or none"):
        run(tmp_path / "in", tmp_path / "o2.zip", SourceOptions(label_file=f"{tmp_path}/l.csv"))


def test_lsun_lmdb(tmp_path):
    lmdb = pytest.importorskip("lmdb")
    images = pictures(4, 30, 40)
    folder = str(tmp_path / "church_outdoor_train_lmdb")
    with lmdb.open(folder, map_size=1 << 24) as database, database.begin(write=True) as transaction:
        for key, image in zip((b"bb", b"aa", b"dd", b"cc"), images):
            out = io.BytesIO()
            Image.fromarray(image).save(out, "webp", lossless=True)
            transaction.put(key, out.getvalue())
    got, labels, _ = run(tmp_path / "church_outdoor_train_lmdb", tmp_path / "l.zip")
    np.testing.assert_array_equal(got, images[[1, 0, 3, 2]])
    assert labels is None


def test_mnist_is_grey_padded_and_labelled(tmp_path):
    images = pictures(3, 28, 28, 1)[..., 0]
    source = idx_files(tmp_path, "train", images, [3, 1, 4])
    got, labels, _ = run(source, tmp_path / "m.zip")
    np.testing.assert_array_equal(got[:, 2:30, 2:30, 0], images)
    assert got.shape == (3, 32, 32, 1)
    assert got[:, :2].max() == got[:, :, 30:].max() == 0
    assert labels == [3, 1, 4]
    run(tmp_path, tmp_path / "n.zip", SourceOptions(split="train"))
    assert (tmp_path / "m.zip").read_bytes() == (tmp_path / "n.zip").read_bytes()


def test_sub_folders_become_classes_when_asked(tmp_path):
    images = pictures(3)
    for name, image in zip(("b/x.png", "a/deep/y.png", "b/z.png"), images):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(png(image))
    got, labels, _ = run(tmp_path / "in", tmp_path / "o.zip", SourceOptions(folder_labels=True))
    np.testing.assert_array_equal(got, images[[1, 0, 2]])
    assert labels == [0, 1, 1]
    assert run(tmp_path / "in", tmp_path / "p.zip")[1] is None


def test_parquet_as_the_hub_writes_it(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    images = pictures(5, 20, 24)
    info = {
        "info": {"features": {"img": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}
    }
    for number, rows in enumerate((range(0, 3), range(3, 5))):
        cells = [{"bytes": png(images[i]), "path": f"{i}.png"} for i in rows]
        table = pyarrow.table({"img": cells, "label": [i % 2 for i in rows], "text": ["x"] * len(rows)})
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
        parquet.write_table(table, tmp_path / f"train-0000{number}-of-00002.parquet")
    got, labels, _ = run(tmp_path, tmp_path / "o.zip")
    np.testing.assert_array_equal(got, images)
    assert labels == [0, 1, 0, 1, 0]
    with zipfile.ZipFile(tmp_path / "o.zip") as z:
        assert json.loads(z.read("dataset.json"))["classes"] == ["cat", "dog"]


def test_webdataset_shards_written_by_webdataset(tmp_path):
    wds = pytest.importorskip("webdataset")
    images = pictures(7, 20, 24)
    (tmp_path / "in").mkdir()
    with wds.ShardWriter(str(tmp_path / "in" / "s-%04d.tar"), maxcount=3, verbose=0) as sink:
        for i, image in enumerate(images):
            sink.write({"__key__": f"k{i:03d}", "png": png(image), "cls": str(i % 3).encode()})
    got, labels, _ = run(tmp_path / "in", tmp_path / "o.zip")
    np.testing.assert_array_equal(got, images)
    assert labels == [i % 3 for i in range(7)]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_plain_tar_of_pictures(tmp_path, mode):
    images = pictures(3)
    with tarfile.open(tmp_path / "p.tar", mode) as tar:
        for i, image in enumerate(images):
            add_file(tar, f"dir/{i}.png", png(image))
    got, labels, skipped = run(tmp_path / "p.tar", tmp_path / "o.zip")
    np.testing.assert_array_equal(got, images)
    assert labels is None
    assert skipped == []


@pytest.mark.parametrize("channels", [1, 3])
def test_official_zip_is_kept_pixel_for_pixel_with_its_labels(tmp_path, channels):
    images = pictures(4, 16, 16, channels)
    source = dataset_zip(tmp_path / "in.zip", images, [1, 0, 2, 1])
    got, labels, _ = run(source, tmp_path / "o.zip")
    np.testing.assert_array_equal(got, images)
    assert labels == [1, 0, 2, 1]


def test_shards_come_out_and_go_in_again(tmp_path):
    images = pictures(7, 8, 8)
    source = dataset_zip(tmp_path / "in.zip", images, [0, 1, 2, 0, 1, 2, 0])
    convert(open_source(str(source)), str(tmp_path / "shards"), ConvertOptions(shard_size=3), lambda *_: None, False)
    assert sorted(p.name for p in (tmp_path / "shards").iterdir()) == ["00000.zip", "00001.zip", "00002.zip"]
    got, labels, _ = run(tmp_path / "shards", tmp_path / "o.zip")
    np.testing.assert_array_equal(got, images)
    assert labels == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize(
    ("option", "value"),
    [("split", "test"), ("image_column", "x"), ("label_column", "x")],
)
def test_an_option_that_means_nothing_to_the_source_is_an_error(tmp_path, option, value):
    source = dataset_zip(tmp_path / "in.zip", pictures(1))
    with pytest.raises(UserError, match="means nothing"):
        open_source(str(source), SourceOptions(**{option: value}))


def test_missing_packages_are_named_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "lsun").mkdir()
    (tmp_path / "lsun/data.mdb").write_bytes(b"")
    (tmp_path / "t.parquet").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "lmdb", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'styleloom\[lmdb\]'"):
        open_source(str(tmp_path / "lsun"))
    with pytest.raises(UserError, match=r"pip install 'styleloom\[parquet\]'"):
        open_source(str(tmp_path / "t.parquet"))


def test_two_workers_give_the_bytes_of_one(tmp_path):
    (tmp_path / "in").mkdir()
    for i, image in enumerate(pictures(80, 20, 30)):
        (tmp_path / f"in/{i}.png").write_bytes(png(image) if i % 9 else b"broken")
    results = []
    for workers in (1, 2, 2):
        dest = tmp_path / f"o{len(results)}.zip"
        _, _, skipped = run(tmp_path / "in", dest, transform=Transform((16, 12)), workers=workers)
        results.append((dest.read_bytes(), skipped))
    assert results[0] == results[1] == results[2]
    assert len(results[0][1]) == 9


def test_max_images_counts_written_images(tmp_path):
    (tmp_path / "in").mkdir()
    for i, image in enumerate(pictures(6)):
        (tmp_path / f"in/{i}.png").write_bytes(png(image) if i else b"broken")
    got, _, skipped = run(tmp_path / "in", tmp_path / "o.zip", max_images=3)
    assert len(got) == 3
    assert len(skipped) == 1


def strays(folder):
    """name -> a function that puts an archive or part of a data set into the folder"""

    def tar(name):
        with tarfile.open(folder / name, "w") as out:
            add_file(out, "inside.png", png(pictures(1)[0]))

    def parquet_table():
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table({"image": [png(pictures(1)[0])]}), folder / "t.parquet")

    return {
        "a.tar": lambda: tar("a.tar"),
        "b.tgz": lambda: tar("b.tgz"),
        "c.zip": lambda: dataset_zip(folder / "c.zip", pictures(1)),
        "t.parquet": parquet_table,
        "data.mdb": lambda: (folder / "data.mdb").write_bytes(b"x"),
        "batches.meta": lambda: (folder / "batches.meta").write_bytes(b"x"),
        "meta": lambda: (folder / "meta").write_bytes(b"x"),
        "train_X.bin": lambda: (folder / "train_X.bin").write_bytes(b"x"),
        "train-images-idx3-ubyte.gz": lambda: idx_files(folder, "train", pictures(1, 28, 28, 1)[..., 0], None),
    }


@pytest.mark.parametrize("inside", ["", "deep/down/"])
@pytest.mark.parametrize("stray", strays(None))
def test_an_archive_among_photos_is_left_out_and_named(tmp_path, stray, inside):
    (tmp_path / "in" / inside).mkdir(parents=True)
    images = pictures(4)
    for i, image in enumerate(images):
        (tmp_path / f"in/{inside}{i}.png").write_bytes(png(image))
    strays(tmp_path / "in")[stray]()
    got, _, skipped = run(tmp_path / "in", tmp_path / "o.zip")
    np.testing.assert_array_equal(got, images)
    assert [name for name, _ in skipped] == [stray]
    is_archive = stray.endswith(("tar", "tgz", "zip", "parquet", "mdb"))
    assert ("give it as --source by itself" in skipped[0][1]) == is_archive


def test_shards_beside_a_text_are_shards(tmp_path):
    images = pictures(2)
    (tmp_path / "in").mkdir()
    dataset_zip(tmp_path / "in/00000.zip", images, [0, 1])
    (tmp_path / "in/readme.txt").write_text("the shards of my data set")
    got, labels, skipped = run(tmp_path / "in", tmp_path / "o.zip")
    np.testing.assert_array_equal(got, images)
    assert (labels, skipped) == ([0, 1], [])
    assert len(open_dataset(tmp_path / "in")) == 2


def test_a_stray_database_in_a_zip_of_photos_is_left_out(tmp_path):
    files = {"0.png": png(pictures(1)[0]), "x/data.mdb": b"x"}
    got, _, skipped = run(write_zip(tmp_path / "in.zip", files), tmp_path / "o.zip")
    assert len(got) == 1
    assert skipped[0][0] == "x/data.mdb"
    with pytest.raises(UserError, match="holds an LMDB folder"):
        open_source(str(write_zip(tmp_path / "db.zip", {"x/data.mdb": b"x"})))


def test_a_cifar_tar_that_begins_with_its_folder_or_a_dot(tmp_path):
    images = pictures(12)
    official = cifar10_tar(tmp_path / "c.tar.gz", images, [0] * 12, test=2)
    with tarfile.open(official) as tar:
        tar.extractall(tmp_path / "all", filter="data")
    with tarfile.open(tmp_path / "dot.tar", "w") as tar:
        tar.add(tmp_path / "all", ".")
    np.testing.assert_array_equal(run(tmp_path / "dot.tar", tmp_path / "o.zip")[0], images[:10])


@pytest.mark.parametrize(
    "names",
    [
        [f"frame.{i:04d}.png" for i in range(12)],
        [f"clip.{i // 4}.{i % 4}.png" for i in range(12)],
        [f"view.{'abcdefghijkl'[i]}.png" for i in range(12)],
        [f"john.smith{i}.{i:02d}.png" for i in range(12)],
        [f"{i}.png" for i in range(12)],
    ],
)
def test_a_tar_of_numbered_names_keeps_all_pictures(tmp_path, names):
    images = pictures(12)
    with tarfile.open(tmp_path / "p.tar", "w") as tar:
        for name, image in zip(names, images):
            add_file(tar, name, png(image))
    got, labels, skipped = run(tmp_path / "p.tar", tmp_path / "o.zip")
    np.testing.assert_array_equal(got, images)
    assert (labels, skipped) == (None, [])


def test_a_sample_of_webdataset_gives_one_picture(tmp_path):
    images = pictures(6)
    with tarfile.open(tmp_path / "p.tar", "w") as tar:
        for i in range(3):
            key = f"sample.{i:03d}"
            add_file(tar, f"{key}.seg.png", png(images[3 + i]))  # a mask, before or behind the picture
            add_file(tar, f"{key}.png", png(images[i]))
            add_file(tar, f"{key}.cls", b"%d" % i)
    got, labels, skipped = run(tmp_path / "p.tar", tmp_path / "o.zip")
    np.testing.assert_array_equal(got, images[:3])
    assert labels == [0, 1, 2]
    assert skipped == [(f"p.tar/sample.{i:03d}.seg.png", "another picture of the same sample") for i in range(3)]


def test_parquet_labels_of_fractions_and_vectors(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    cells = [png(image) for image in pictures(2)]
    table = pyarrow.table({"image": cells, "label": [0.5, 2.0], "box": [[1, 2, 3], [4, 5, 6]], "text": ["a", "b"]})
    parquet.write_table(table, tmp_path / "t.parquet")
    assert run(tmp_path / "t.parquet", tmp_path / "a.zip")[1] == [[0.5], [2.0]]
    options = SourceOptions(label_column="box")
    assert run(tmp_path / "t.parquet", tmp_path / "b.zip", options)[1] == [[1, 2, 3], [4, 5, 6]]
    with pytest.raises(UserError, match="columns that do: label, box"):
        open_source(str(tmp_path / "t.parquet"), SourceOptions(label_column="text"))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_of_lab_colours(tmp_path, channels):
    (tmp_path / "in").mkdir()
    lab = Image.fromarray(np.full((8, 8, 3), (128, 0, 0), np.uint8), "LAB")
    lab.save(tmp_path / "in/a.tif")
    got, _, skipped = run(tmp_path / "in", tmp_path / "o.zip", channels=channels)
    assert skipped == []
    assert np.abs(got[0].astype(int) - 119).max() <= 1, "CIE L* = 50.2 is sRGB 119.5"
