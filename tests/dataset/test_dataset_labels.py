"""Labels: each picture gets the one that is meant, of a kind that training takes, or one line says why not."""

import json
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.dataset_samples import dataset_zip, pictures, png, read_dataset_zip, write_zip

from dnnlib import UserError
from training.conversion.convert import ConvertOptions, convert
from training.conversion.destination import open_destination
from training.conversion.labels.kinds import LabelTally, describe_labels, in_class_order
from training.conversion.labels.matching import match_names
from training.conversion.png import encode_png
from training.conversion.sources import SourceOptions, notes_of, open_source
from training.dataset import open_dataset
from training.dataset.labels import normal_name, parse_label_file

NAMES = ["cat/0.png", "cat/1.png", "dog/2.png", "dog/3.png"]
CLASSES = [0, 0, 1, 1]


def folder(path: Path, names: list[str]) -> Path:
    for i, name in enumerate(names):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(png(pictures(1, 8, 8, seed=i)[0]))
    return path


def converted(source: Path, dest: Path, **options: object) -> tuple[list | None, list[str], list[str]]:
    """-> labels in the order of names, class names, the source's notes."""
    opened = open_source(str(source), SourceOptions(**options))  # type: ignore[arg-type]
    convert(opened, str(dest), ConvertOptions(), lambda *skip: None, progress=False)
    with zipfile.ZipFile(dest) as z:
        classes = json.loads(z.read("dataset.json")).get("classes", [])
    labels = read_dataset_zip(dest)[1]
    if labels is not None:
        open_dataset(dest, use_labels=True)  # training takes whatever was converted
    return labels, classes, notes_of(opened)


SPELLINGS = {
    "as they are": NAMES,
    "dot": [f"./{n}" for n in NAMES],
    "backslash": [n.replace("/", "\\") for n in NAMES],
    "doubled": [n.replace("/", "//") for n in NAMES],
    "more folders": [f"data/train/{n}" for n in NAMES],
    "fewer folders": [n.split("/")[1] for n in NAMES],
    "suffix": [n.replace(".png", ".jpg") for n in NAMES],
    "no suffix": [n.removesuffix(".png") for n in NAMES],
    "case": [n.upper() for n in NAMES],
    "all": [f"x\\{n}".replace("/", "\\").replace(".png", ".JPEG") for n in NAMES],
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_labels_find_their_pictures_however_names_are_spelled(tmp_path, spelling):
    source = folder(tmp_path / "in", NAMES)
    pairs = list(zip(SPELLINGS[spelling], CLASSES))
    (tmp_path / "l.csv").write_text("".join(f"{name},{label}\n" for name, label in pairs))
    (tmp_path / "l.json").write_text(json.dumps({"labels": pairs}))
    for file in ("l.csv", "l.json"):
        assert converted(source, tmp_path / f"{file}.zip", label_file=str(tmp_path / file))[0] == CLASSES
    (source / "dataset.json").write_text(json.dumps({"labels": pairs}))
    assert converted(source, tmp_path / "own.zip")[0] == CLASSES


def test_accents_match_whether_composed_or_not(tmp_path):
    name = "caf\N{LATIN SMALL LETTER E WITH ACUTE}.png"
    for form, other in (("NFC", "NFD"), ("NFD", "NFC")):
        source = folder(tmp_path / form, [unicodedata.normalize(form, name), "x.png"])
        labels = {unicodedata.normalize(other, name): 1, "x.png": 0}
        (source / "dataset.json").write_text(json.dumps({"labels": labels}))
        assert sorted(converted(source, tmp_path / f"{form}.zip")[0]) == [0, 1]


def test_names_in_zips_that_are_utf_8_without_saying_so(tmp_path):
    name = "\N{LATIN SMALL LETTER U WITH DIAERESIS}.png"
    files = {name: png(pictures(1)[0]), "dataset.json": json.dumps({"labels": [[name, 3]]}).encode()}
    data = bytearray(write_zip(tmp_path / "in.zip", files).read_bytes())
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = data.index(signature)
        assert data[start + at + 1] & 8, "Python says so"
        data[start + at + 1] &= ~8
    (tmp_path / "in.zip").write_bytes(data)
    assert converted(tmp_path / "in.zip", tmp_path / "o.zip")[0] == [3]
    assert open_dataset(tmp_path / "in.zip", use_labels=True).label_dim == 4


def test_dataset_json_deeper_down_labels_what_lies_below_it(tmp_path):
    source = folder(tmp_path / "in", ["a/b/c/0.png", "a/b/c/1.png", "a/b/d/0.png"])
    (source / "a/b/c/dataset.json").write_text(json.dumps({"labels": {"0.png": 5, "1.png": 6}}))
    (source / "a/b/d/dataset.json").write_text(json.dumps({"labels": {"0.png": 7}}))
    assert converted(source, tmp_path / "o.zip")[0] == [5, 6, 7]
    for name, classes in (("c", ["x"] * 7), ("d", ["y"] * 8)):
        (source / f"a/b/{name}/dataset.json").write_text(json.dumps({"labels": {"0.png": 5}, "classes": classes}))
    with pytest.raises(UserError, match="name different classes"):
        converted(source, tmp_path / "p.zip")


def test_labels_that_fit_nothing_are_an_error_with_one_of_each(tmp_path):
    source = folder(tmp_path / "in", NAMES)
    (tmp_path / "l.csv").write_text("".join(f"photo_{i}.png,{i}\n" for i in range(4)))
    with pytest.raises(UserError, match=r"l\.csv: none of its labels \(4\).*'photo_0\.png'.*'cat/0\.png'"):
        converted(source, tmp_path / "o.zip", label_file=str(tmp_path / "l.csv"))
    (source / "dataset.json").write_text(json.dumps({"labels": {"elsewhere.png": 1}}))
    with pytest.raises(UserError, match=r"none of its labels \(1\).*'elsewhere\.png'"):
        converted(source, tmp_path / "o.zip")
    (tmp_path / "none.json").write_text('{"labels": null}')
    with pytest.raises(UserError, match="holds no labels"):
        converted(source, tmp_path / "o.zip", label_file=str(tmp_path / "none.json"))
    assert not (tmp_path / "o.zip").exists()


def test_partial_matches_are_counted_out_loud(tmp_path):
    source = folder(tmp_path / "in", NAMES)
    (source / "dog/3.png").write_bytes(b"broken, so its label isn't missed")
    (tmp_path / "l.csv").write_text("cat/0.png,0\ncat/1.png,0\ndog/2.png,1\nbird/9.png,2\n")
    labels, _, notes = converted(source, tmp_path / "o.zip", label_file=str(tmp_path / "l.csv"))
    assert labels == [0, 0, 1]
    assert len(notes) == 2
    assert "pictures without a label: 1 of 4, such as dog/3.png" in notes[0]
    assert "labels that fit no picture: 1 of 4, such as bird/9.png" in notes[1]


def test_a_label_that_fits_two_pictures_is_refused(tmp_path):
    source = folder(tmp_path / "in", ["cat/0.png", "dog/0.png", "dog/1.png"])
    (tmp_path / "l.csv").write_text("0.png,0\n1.png,1\n")
    with pytest.raises(UserError, match=r"0\.png fits both cat/0\.png and dog/0\.png"):
        converted(source, tmp_path / "o.zip", label_file=str(tmp_path / "l.csv"))
    (tmp_path / "l.csv").write_text("cat/0.png,0\n./cat/0.png,1\n")
    with pytest.raises(UserError, match="the label '1' after '0'"):
        converted(source, tmp_path / "o.zip", label_file=str(tmp_path / "l.csv"))


def test_the_strictest_rule_that_fits_most_is_taken():
    labels = {"a/0.png": 1, "b/0.png": 2, "0.png": 3}
    assert match_names(labels, ["0.png"], "x").labels == {"0.png": 3}
    assert match_names(labels, ["t/a/0.png", "t/b/0.png"], "x").labels == {"t/a/0.png": 1, "t/b/0.png": 2}
    assert match_names({"0.JPG": 4, "0.png": 5}, ["0.png"], "x").labels == {"0.png": 5}


def test_one_spelling_of_names():
    for name in ("a/b.png", "./a//b.png", "a\\b.png", "/a/./b.png"):
        assert normal_name(name) == "a/b.png"
    assert normal_name(".a/..b.png") == ".a/..b.png"


KINDS = {
    "classes": ([2, 0], [2, 0]),
    "whole numbers with a point": ([2.0, 0.0], [2, 0]),
    "fractions": ([0.5, -3], [[0.5], [-3.0]]),
    "vectors": ([[1, 0.5], [2, -1]], [[1.0, 0.5], [2.0, -1.0]]),
    "vectors of length 1": ([[1], [2]], [[1.0], [2.0]]),
}
REFUSED = {
    "words": ["cat", "dog"],
    "negative": [-1, 0],
    "truth": [True, False],
    "nan": [float("nan"), 1.0],
    "infinite": [float("inf"), 0.5],
    "nan in a vector": [[float("nan")], [1.0]],
    "words in a vector": [["1"], ["2"]],
    "lengths": [[1, 2], [1, 2, 3]],
    "empty vectors": [[], []],
    "mixed": [1, [1.0]],
    "huge": [10**9, 0],
    "huger": [10**400, 0],
    "objects": [{"a": 1}, {"a": 2}],
}


@pytest.mark.parametrize("kind", KINDS)
def test_label_values_are_decided_when_converting(tmp_path, kind):
    values, expected = KINDS[kind]
    source = folder(tmp_path / "in", ["0.png", "1.png"])
    (source / "dataset.json").write_text(json.dumps({"labels": list(zip(("0.png", "1.png"), values))}))
    labels, _, _ = converted(source, tmp_path / "o.zip")
    assert labels == expected
    assert json.dumps(labels) == json.dumps(expected), "1 and 1.0 are different labels"


@pytest.mark.parametrize("kind", REFUSED)
def test_label_values_that_training_refuses_are_refused_with_the_name(tmp_path, kind):
    source = folder(tmp_path / "in", ["0.png", "1.png"])
    (source / "dataset.json").write_text(json.dumps({"labels": list(zip(("0.png", "1.png"), REFUSED[kind]))}))
    with pytest.raises(UserError, match=r"the label of [01]\.png: ") as e:
        converted(source, tmp_path / "o.zip")
    assert len(str(e.value)) < 400
    assert not (tmp_path / "o.zip").exists()


def test_no_source_can_write_other_labels(tmp_path):
    pixels = encode_png(pictures(1, 8, 8)[0])
    for labels in ([-1], [True], ["a"], [1, [1.0]], [[1.0], [1.0, 2.0]], [[]], [[float("nan")]]):
        with open_destination(f"{tmp_path}/o.zip") as out:
            for label in labels[:-1]:
                out.add(pixels, label)
            with pytest.raises(UserError, match="labels are class numbers"):
                out.add(pixels, labels[-1])
            out.add(pixels, labels[0] if len(labels) > 1 else 0)


def test_a_csv_of_words_numbers_or_fractions_with_a_heading_or_without(tmp_path):
    source = folder(tmp_path / "in", ["0.png", "1.png", "2.png"])
    cases = {
        "file,class\n0.png,airplane\n1.png,truck\n2.png,airplane\n": ([0, 1, 0], ["airplane", "truck"]),
        "Id,Label\n0.png,airplane\n1.png,truck\n2.png,airplane\n": ([0, 1, 0], ["airplane", "truck"]),
        "image_id,label\n0,b\n1,a\n2,a\n": ([1, 0, 0], ["a", "b"]),
        "0.png,b\n1.png,a\n2.png,a\n": ([1, 0, 0], ["a", "b"]),
        "0.png,0.0\n1.png,2.0\n2.png,10.0\n": ([0, 2, 10], []),
        "file,n\n0.png,0\n1.png,2\n2.png,10\n": ([0, 2, 10], []),
        "0.png,007\n1.png,2\n2.png,10\n": ([7, 2, 10], []),
        "0.png,0.25\n1.png,2\n2.png,-1e-1\n": ([[0.25], [2.0], [-0.1]], []),
        "0.png,class 2\n1.png,class 10\n2.png,class 1\n": ([1, 2, 0], ["class 1", "class 2", "class 10"]),
    }
    for number, (text, expected) in enumerate(cases.items()):
        (tmp_path / "l.csv").write_text(text)
        found = converted(source, tmp_path / f"{number}.zip", label_file=str(tmp_path / "l.csv"))
        assert found[:2] == expected, text
    (tmp_path / "l.csv").write_text("0.png,-1\n1.png,0\n2.png,1\n")
    with pytest.raises(UserError, match=r"the label of 0\.png: -1 can't be used"):
        converted(source, tmp_path / "o.zip", label_file=str(tmp_path / "l.csv"))


def test_folder_classes_are_those_with_pictures_in_the_order_of_their_numbers(tmp_path):
    source = folder(tmp_path / "in", [f"{i}/x.png" for i in (0, 1, 2, 10)])
    for empty in ("1empty", "1text"):
        (source / empty).mkdir()
    (source / "1text/readme.txt").write_text("no picture")
    labels, classes, _ = converted(source, tmp_path / "o.zip", folder_labels=True)
    assert classes == ["0", "1", "2", "10"]
    assert labels == [0, 1, 3, 2], "in the order of the files' names"
    assert in_class_order({"b", "a10", "a9", "a09", "10", "9"}) == ["9", "10", "a09", "a9", "a10", "b"]


def test_folders_that_wrap_all_others_are_no_classes(tmp_path):
    files = {f"data/train/{name}": png(pictures(1, 8, 8)[0]) for name in NAMES}
    source = write_zip(tmp_path / "in.zip", {**files, "data/readme.txt": b""})
    labels, classes, _ = converted(source, tmp_path / "o.zip", folder_labels=True)
    assert (labels, classes) == (CLASSES, ["cat", "dog"])
    source = folder(tmp_path / "in", ["cat/0.png", "cat/1.png"])
    assert converted(source, tmp_path / "one.zip", folder_labels=True)[:2] == ([0, 0], ["cat"])
    folder(tmp_path / "in", ["2.png", "dog/3.png"])
    with pytest.raises(UserError, match="only 3 of 4 images have a label"):
        converted(source, tmp_path / "p.zip", folder_labels=True)
    assert "pictures in no folder of a class: 1 of 4, such as 2.png" in notes_of(
        open_source(str(source), SourceOptions(folder_labels=True))
    )


def test_the_class_table_names_what_has_no_picture():
    tally = LabelTally()
    for label in (3, 0, 3):
        tally.add(label)
    assert list(describe_labels(tally, ["cat", "dog\x1b[31m"])) == [
        "classes: 2", "  0 cat: 1", "  3: 2", "  without any picture: 1, 2",
    ]  # fmt: skip
    many = LabelTally()
    for label in range(0, 400, 2):
        many.add(label)
    lines = list(describe_labels(many, []))
    assert lines[101] == "  and 100 more"
    assert lines[102].endswith("13, 15, 17, 19 and 189 more")
    vectors = LabelTally()
    vectors.add([0.5, 1.0])
    assert list(describe_labels(vectors, [])) == ["labels: vectors of length 2"]
    assert not list(describe_labels(LabelTally(), []))


@pytest.mark.parametrize("text", ["[" + "[]," * 1_100_000 + "[]]", '{"labels": {"a": [' + "{}," * 1_100_000 + "{}]}}",
                                  "[" + "0," * 9_000_000 + "0]", "[" * 100_000])  # fmt: skip
def test_a_label_file_that_unpacks_to_a_full_memory_is_refused(tmp_path, text):
    with pytest.raises(UserError, match="dataset.json is (too large|not of the form)"):
        parse_label_file(text.encode(), "x", images=4)
    path = write_zip(tmp_path / "in.zip", {"0.png": png(pictures(1)[0]), "dataset.json": text.encode()}, packed=True)
    for read in (lambda: open_dataset(path, use_labels=True), lambda: open_source(str(path))):
        with pytest.raises(UserError, match="dataset.json is (too large|not of the form)"):
            read()


def test_long_labels_of_many_pictures_are_read():
    pairs = [[f"{i}.png", np.arange(600).tolist()] for i in range(2000)]
    assert len(parse_label_file(json.dumps(pairs).encode(), "x", images=2000) or {}) == 2000


def test_training_reads_other_spellings_too(tmp_path):
    path = dataset_zip(tmp_path / "a.zip", pictures(2, 8, 8), [1, 0])
    with zipfile.ZipFile(path) as z:
        files = {n: z.read(n) for n in z.namelist()}
    files["dataset.json"] = files["dataset.json"].replace(b'"00000/', b'"./00000\\\\')
    dataset = open_dataset(write_zip(tmp_path / "b.zip", files), use_labels=True)
    assert dataset.labels([0, 1]).argmax(1).tolist() == [1, 0]
