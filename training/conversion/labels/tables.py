"""Label files that lie beside pictures (`--label-file`): dataset.json, CelebA's lists, CSV."""

import csv
import os
import re
from dataclasses import dataclass, field

from dnnlib.errors import UserError
from training.conversion.labels.kinds import in_class_order, settle_labels
from training.dataset.folder_reader import read_file
from training.dataset.labels import gather_labels, parse_classes, parse_label_file
from training.dataset.pictures import looks_like_picture
from training.dataset.zip_reader import BadMember

_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?")
_HEADINGS = frozenset(
    ("file", "filename", "file_name", "filepath", "file_path", "path", "name", "image", "image_id", "imageid", "img",
     "id", "picture")
)  # fmt: skip


@dataclass
class LabelTable:
    """Labels by file name, as `normal_name` gives it, and the classes' names by number, if they are known."""

    labels: dict[str, int | list[float]]
    classes: list[str] = field(default_factory=list)


def read_label_table(path: str, images: int) -> LabelTable:
    """Reads a label file for about so many images; its kind shows in its content. Raises UserError if it is none.

    - dataset.json as in a data set;
    - list_attr_celeba.txt: number of pictures, names of the attributes, then a line each of 1 and -1 -> vectors of
      1 and 0;
    - two columns `file class` as in identity_CelebA.txt, or CSV `file,class`, with or without a heading: whole
      numbers are class numbers, other numbers continuous labels, words are classes numbered in their order.
    """
    try:
        data = read_file(path)
    except BadMember as e:
        raise UserError(f"--label-file={path} {e}") from e
    where = f"--label-file={path}"
    if data.lstrip()[:1] in (b"{", b"["):
        return LabelTable(settle_labels(parse_label_file(data, where, images) or {}, where), parse_classes(data))
    try:
        lines = data.decode("utf-8-sig").splitlines()
        rows = [row for row in _rows(lines) if row]
        if len(rows) > 2 and len(rows[0]) == 1 and rows[0][0].isdigit():
            return _attributes(rows, where)
        return _classes(rows, where)
    except (ValueError, csv.Error) as e:
        raise UserError(
            f"{where} ({os.path.basename(path)}) is no dataset.json, list_attr_celeba.txt, or list of "
            f"'file class' lines: {e}"
        ) from e


def _rows(lines: list[str]) -> list[list[str]]:
    if any("," in line for line in lines[:2]):
        return [[cell.strip() for cell in row] for row in csv.reader(lines)]
    return [line.split() for line in lines]


def _attributes(rows: list[list[str]], where: str) -> LabelTable:
    width = len(rows[1])
    for row in rows[2:]:
        if len(row) != width + 1 or not set(row[1:]) <= {"1", "-1", "0"}:
            raise ValueError(f"the line of {row[0]} hasn't {width} values of 1 or -1")
    vectors = ((row[0], [float(value == "1") for value in row[1:]]) for row in rows[2:])
    return LabelTable(gather_labels(vectors, where), rows[1])


def _classes(rows: list[list[str]], where: str) -> LabelTable:
    wrong = [row for row in rows if len(row) != 2]
    if wrong or not rows:
        raise ValueError(f"{' '.join(wrong[0])[:60]!r} is not a file and a class" if wrong else "it is empty")
    if _has_heading(rows):
        rows = rows[1:]
    texts = gather_labels(((name, value) for name, value in rows), where)
    if all(_NUMBER.fullmatch(value) for value in texts.values()):
        return LabelTable(settle_labels({name: float(value) for name, value in texts.items()}, where))
    words = in_class_order(set(texts.values()))
    numbers = {word: i for i, word in enumerate(words)}
    return LabelTable({name: numbers[word] for name, word in texts.items()}, words)


def _has_heading(rows: list[list[str]]) -> bool:
    """True if the first row names the columns: its file is none as the others' are, or its class is no number as
    theirs are."""
    if len(rows) < 2:
        return False
    (name, value), (second, _) = rows[0], rows[1]
    if name.casefold() in _HEADINGS or (looks_like_picture(second) and not looks_like_picture(name)):
        return True
    return not _NUMBER.fullmatch(value) and all(_NUMBER.fullmatch(row[1]) for row in rows[1:])
