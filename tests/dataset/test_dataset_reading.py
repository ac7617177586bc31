"""Reading data sets: pixels, labels, subset, x-flip, cache, and what a damaged one says."""

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import nasty_files
from support.dataset_samples import dataset_zip, pictures, png, write_zip

from dnnlib import UserError
from training.dataset import decoding, open_dataset, zip_reader
from training.dataset.kinds import cache, pixels

EMOJI = Path(__file__).parents[2] / "datasets/noto-emoji-32.zip"


@pytest.mark.parametrize("channels", [1, 3])
def test_zip_gives_its_pixels_as_chw_uint8(tmp_path, channels):
    images = pictures(5, 12, 20, channels)
    dataset = open_dataset(dataset_zip(tmp_path / "some.zip", images))
    got, labels = dataset.load([3, 0, 3])
    assert got.dtype == torch.uint8
    np.testing.assert_array_equal(got.numpy(), images[[3, 0, 3]].transpose(0, 3, 1, 2))
    assert labels.shape == (3, 0)
    assert (len(dataset), dataset.name, dataset.image_shape, dataset.label_dim) == (5, "some", (channels, 12, 20), 0)


def test_folder_and_zip_agree_also_in_their_hash(tmp_path):
    path = dataset_zip(tmp_path / "some.zip", pictures(5), [0, 2, 1, 1, 0])
    with zipfile.ZipFile(path) as z:
        z.extractall(tmp_path / "folder")
    a, b = open_dataset(path, use_labels=True), open_dataset(tmp_path / "folder", use_labels=True)
    assert all(torch.equal(x, y) for x, y in zip(a.load(range(5)), b.load(range(5))))
    assert a.content_hash() == b.content_hash()


def test_hash_tells_pixels_labels_flip_and_subset_apart(tmp_path):
    path = dataset_zip(tmp_path / "a.zip", pictures(5), [0, 1, 2, 3, 4])
    other = dataset_zip(tmp_path / "b.zip", pictures(5, seed=1), [0, 1, 2, 3, 4])
    relabelled = dataset_zip(tmp_path / "c.zip", pictures(5), [1, 0, 2, 3, 4])
    hashes = [
        open_dataset(path).content_hash(),
        open_dataset(other).content_hash(),
        open_dataset(path, use_labels=True).content_hash(),
        open_dataset(relabelled, use_labels=True).content_hash(),
        open_dataset(path, xflip=True).content_hash(),
        open_dataset(path, max_size=3).content_hash(),
        open_dataset(path, max_size=3, seed=1).content_hash(),
    ]
    assert len(set(hashes)) == len(hashes)
    assert open_dataset(path).content_hash() == hashes[0] == open_dataset(relabelled).content_hash()


def test_classes_become_one_hot_and_vectors_stay(tmp_path):
    classes = open_dataset(dataset_zip(tmp_path / "a.zip", pictures(3), [2, 0, 4]), use_labels=True)
    assert classes.label_dim == 5
    np.testing.assert_array_equal(classes.load([0, 1, 2])[1], np.eye(5, dtype=np.float32)[[2, 0, 4]])
    vectors = open_dataset(dataset_zip(tmp_path / "b.zip", pictures(2), [[0.5, -1, 2], [1, 2, 3]]), use_labels=True)
    assert vectors.label_dim == 3
    np.testing.assert_array_equal(vectors.load([1, 0])[1], [[1, 2, 3], [0.5, -1, 2]])


def test_xflip_doubles_and_mirrors_the_second_half(tmp_path):
    images = pictures(3)
    dataset = open_dataset(dataset_zip(tmp_path / "a.zip", images, [0, 1, 2]), use_labels=True, xflip=True)
    got, labels = dataset.load(range(6))
    np.testing.assert_array_equal(got[:3].numpy(), images.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(got[3:].numpy(), images[:, :, ::-1].transpose(0, 3, 1, 2))
    assert torch.equal(labels[:3], labels[3:])


def test_subset_is_drawn_by_seed_and_labels_follow(tmp_path):
    images = pictures(20)
    path = dataset_zip(tmp_path / "a.zip", images, list(range(20)))

    def draw(seed):
        dataset = open_dataset(path, use_labels=True, max_size=6, seed=seed)
        got, labels = dataset.load(range(6))
        members = labels.argmax(1).numpy()
        np.testing.assert_array_equal(got.numpy(), images[members].transpose(0, 3, 1, 2))
        return members.tolist()

    assert draw(0) == draw(0) == sorted(draw(0))
    assert draw(0) != draw(1)
    assert len(open_dataset(path, max_size=100)) == 20


@pytest.fixture
def decodings(monkeypatch):
    """Grows by one with every image that is decoded."""
    calls, decode = [], pixels.decode
    monkeypatch.setattr(pixels, "decode", lambda data: calls.append(1) or decode(data))
    return calls


def test_an_image_is_decoded_once_when_the_set_fits_in_memory(tmp_path, decodings):
    dataset = open_dataset(dataset_zip(tmp_path / "a.zip", pictures(4)))
    for _ in range(3):
        dataset.load([0, 1, 1, 3])
    assert len(decodings) == 3


def test_without_room_every_load_decodes_the_same_pixels(tmp_path, monkeypatch, decodings):
    path = dataset_zip(tmp_path / "a.zip", pictures(4))
    expected = open_dataset(path).load(range(4))[0]
    monkeypatch.setattr(cache, "_free_memory", lambda: 0)
    dataset = open_dataset(path)
    decodings.clear()
    for _ in range(2):
        assert torch.equal(dataset.load(range(4))[0], expected)
    assert len(decodings) == 8


def test_processes_of_one_machine_share_its_memory(tmp_path, monkeypatch, decodings):
    path = dataset_zip(tmp_path / "a.zip", pictures(4))  # 12,288 bytes decoded
    monkeypatch.setattr(cache, "_free_memory", lambda: 60_000)
    for processes, decoded in (("1", 4), ("2", 4), ("3", 8)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        dataset = open_dataset(path)
        decodings.clear()
        for _ in range(2):
            dataset.load(range(4))
        assert len(decodings) == decoded


def test_the_unmirrored_view_shares_files_headers_and_pixels(tmp_path, monkeypatch, decodings):
    path = dataset_zip(tmp_path / "a.zip", pictures(6), [0, 1, 2, 3, 4, 5])
    mirrored = open_dataset(path, use_labels=True, max_size=4, xflip=True)
    alone = open_dataset(path, use_labels=True, max_size=4)
    mirrored.load(range(8))
    decodings.clear()
    monkeypatch.setattr(zip_reader.ZipReader, "read", None)  # nothing is read again
    view = mirrored.unmirrored()
    images, labels = view.load(range(4))
    assert not decodings
    monkeypatch.undo()
    assert (len(view), len(mirrored)) == (4, 8)
    assert view.content_hash() == alone.content_hash() != mirrored.content_hash()
    for ours, theirs in zip((images, labels), alone.load(range(4))):
        assert torch.equal(ours, theirs)
    assert view.unmirrored() is view


def test_without_pyspng_pillow_reads_the_same(tmp_path, monkeypatch):
    for channels in (1, 3):
        path = dataset_zip(tmp_path / f"{channels}.zip", pictures(3, 9, 7, channels))
        expected = open_dataset(path).load(range(3))[0]
        with monkeypatch.context() as patch:
            patch.setattr(decoding, "pyspng", None)
            assert torch.equal(open_dataset(path).load(range(3))[0], expected)


def test_a_pickled_data_set_reads_on(tmp_path):
    dataset = open_dataset(dataset_zip(tmp_path / "a.zip", pictures(3), [0, 1, 2]), use_labels=True, xflip=True)
    again = pickle.loads(pickle.dumps(dataset))
    assert all(torch.equal(x, y) for x, y in zip(dataset.load(range(6)), again.load(range(6))))


def test_shards_read_as_one_set(tmp_path):
    images = pictures(5)
    (tmp_path / "set").mkdir()
    dataset_zip(tmp_path / "set/00000.zip", images[:3], [0, 1, 2])
    dataset_zip(tmp_path / "set/00001.zip", images[3:], [3, 0])
    dataset = open_dataset(tmp_path / "set", use_labels=True)
    got, labels = dataset.load([4, 0, 3])
    np.testing.assert_array_equal(got.numpy(), images[[4, 0, 3]].transpose(0, 3, 1, 2))
    assert labels.argmax(1).tolist() == [0, 0, 3]
    assert dataset.load([4])[1].tolist() == [[1, 0, 0, 0]]


def test_compressed_zips_are_read_too(tmp_path):
    images = pictures(2)
    dataset = open_dataset(
        write_zip(tmp_path / "a.zip", {f"{i}.png": png(p) for i, p in enumerate(images)}, packed=True)
    )
    np.testing.assert_array_equal(dataset.load([0, 1])[0].numpy(), images.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("cifar10.zip", "cifar-10-python.tar.gz from https://www.cs.toronto.edu"),
        ("cifar100.zip", "cifar-100-python.tar.gz"),
        ("stl10.zip", "--width=48 --height=48"),
        ("celeba.zip", "--width=64 --height=64 --transform=center-crop"),
        ("lsun-church.zip", "church_outdoor_train_lmdb"),
        ("mine.zip", "--source=YOUR_IMAGES"),
    ],
)
def test_missing_data_says_where_to_get_it_and_how_to_convert_it(tmp_path, name, advice):
    with pytest.raises(UserError, match="there is no data set at") as e:
        open_dataset(tmp_path / name)
    assert advice in str(e.value)
    assert f"--dest={tmp_path / name}" in str(e.value)


def wrong_sets(tmp_path):
    """name -> (path, part of the message)"""
    first, other = pictures(2), pictures(1, 16, 16)[0]
    plain = {"0.png": png(first[0]), "1.png": png(first[1])}

    def labelled(labels):
        return write_zip(tmp_path / "x.zip", {**plain, "dataset.json": json.dumps({"labels": labels}).encode()})

    def text(content):
        (tmp_path / "x.zip").write_bytes(content)
        return tmp_path / "x.zip"

    return {
        "not a zip": (lambda: text(b"hello"), "not a readable zip"),
        "empty file": (lambda: text(b""), "not a readable zip"),
        "no images": (lambda: write_zip(tmp_path / "x.zip", {"a.txt": b"x"}), "holds no images"),
        "mixed sizes": (lambda: write_zip(tmp_path / "x.zip", {**plain, "2.png": png(other)}), "2.png is 16x16 RGB"),
        "mixed channels": (
            lambda: write_zip(tmp_path / "x.zip", {**plain, "2.png": png(first[0, :, :, :1])}),
            "2.png is 32x32 grey",
        ),
        "transparent": (
            lambda: write_zip(tmp_path / "x.zip", {"2.png": png(pictures(1, channels=4)[0])}),
            "it has transparent parts",
        ),
        "no labels": (lambda: write_zip(tmp_path / "x.zip", plain), "has no labels"),
        "null labels": (lambda: labelled(None), "has no labels"),
        "label missing": (lambda: labelled([["0.png", 1]]), "no label for 1.png"),
        "label too many": (lambda: labelled([["0.png", 1], ["1.png", 1], ["9.png", 1]]), "aren't there: 9.png"),
        "mixed labels": (lambda: labelled([["0.png", 1], ["1.png", [1, 2]]]), "all whole numbers"),
        "negative": (lambda: labelled([["0.png", -1], ["1.png", 0]]), "all whole numbers"),
        "huge class": (lambda: labelled([["0.png", 10**9], ["1.png", 0]]), "beyond"),
        "words": (lambda: labelled([["0.png", "cat"], ["1.png", "dog"]]), "all whole numbers"),
        "nan": (lambda: labelled([["0.png", [float("nan")]], ["1.png", [1.0]]]), "all whole numbers"),
        "labels are no list": (lambda: labelled(3), "dataset.json is not of the form"),
        "no json": (lambda: write_zip(tmp_path / "x.zip", {**plain, "dataset.json": b"{"}), "not of the form"),
    }


@pytest.mark.parametrize("case", wrong_sets(None))
def test_a_wrong_data_set_is_one_clear_line(tmp_path, case):
    make, message = wrong_sets(tmp_path)[case]
    path = make()
    with pytest.raises(UserError) as e:
        open_dataset(path, use_labels=True)
    assert message in str(e.value)
    assert str(path) in str(e.value)
    assert "\n" not in str(e.value)


def test_damage_beyond_the_header_is_found_on_reading(tmp_path):
    path = dataset_zip(tmp_path / "a.zip", pictures(2))
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 100] ^= 0xFF
    path.write_bytes(data)
    dataset = open_dataset(path)
    with pytest.raises(UserError, match="00000/img00000000.png can't be read"):
        dataset.load([0])
    assert dataset.load([1])[0].shape == (1, 3, 32, 32)


def test_a_truncated_png_in_a_folder_is_an_error(tmp_path):
    (tmp_path / "0.png").write_bytes(png(pictures(1)[0])[:-500])
    with pytest.raises(UserError, match=r"0\.png can't be read"):
        open_dataset(tmp_path).load([0])


def test_indices_outside_are_refused(tmp_path):
    dataset = open_dataset(dataset_zip(tmp_path / "a.zip", pictures(2)))
    for index in (2, -1):
        with pytest.raises(IndexError):
            dataset.load([index])


def test_labels_alone_are_those_of_load():
    dataset = open_dataset(EMOJI, use_labels=True, xflip=True, max_size=50)
    indices = [0, 49, 50, 99, 7]
    assert torch.equal(dataset.labels(indices), dataset.load(indices)[1])
    assert dataset.labels(indices).sum() == 5


def test_a_folder_of_foreign_pictures_is_read_as_the_converter_reads_it(tmp_path):
    """For calc_metrics --images above all: deep values, transparent colours that occur nowhere, turned photographs."""
    wanted = {
        name: (content, pixels)
        for name, (content, pixels) in nasty_files.wanted_files().items()
        if name in ("grey-16.png", "grey-12.tiff", "grey-16-clear-1.png", "one-bit.png")
    }
    for name, (content, _) in wanted.items():
        (tmp_path / name).write_bytes(content)
    images = open_dataset(tmp_path).load(range(4))[0]
    for name, image in zip(sorted(wanted), images.numpy()):
        assert np.abs(image - wanted[name][1][..., 0].astype(int)).max() <= 1, name


def test_a_turned_photograph_has_the_shape_it_is_shown_in(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pictures(1, 16, 24)[0]).save(tmp_path / "a.jpg", exif=exif)
    dataset = open_dataset(tmp_path)
    assert dataset.image_shape == (3, 24, 16)
    assert dataset.load([0])[0].shape == (1, 3, 24, 16)


@pytest.mark.parametrize("name", ["text.png", "truncated.png", "truncated.jpg", "page.jpg", "bomb.png"])
def test_a_broken_picture_in_a_folder_is_named(tmp_path, name):
    (tmp_path / "good.png").write_bytes(png(pictures(1, 64, 64)[0]))
    (tmp_path / f"z-{name}").write_bytes(nasty_files.skipped_files()[name][0])
    with pytest.raises(UserError, match=f"z-{name}"):
        open_dataset(tmp_path).load([0, 1])
