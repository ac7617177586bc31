"""Label files that lie beside pictures (`--label-file`): dataset.json, CelebA's lists, CSV."""

import csv
import os

from dnnlib.errors import UserError
from training.conversion.destination import Label
from training.dataset.folder_reader import read_file
from training.dataset.labels import parse_classes, parse_label_file
from training.dataset.zip_reader import BadMember


class LabelTable:
    """Labels by file name; a name in the table may leave out the folders."""

    def __init__(self, labels: dict[str, int | list[float]], classes: list[str] | None = None):
        self._labels = labels
        self.classes = classes or []

    def get(self, name: str) -> Label:
        """The label of a picture, None if it has none."""
        label = self._labels.get(name)
        return self._labels.get(name.rsplit("/", 1)[-1]) if label is None else label


def read_label_table(path: str) -> LabelTable:
    """Reads a label file; its kind shows in its content. Raises UserError if it is none of the kinds.

    - dataset.json as in a data set;
    - list_attr_celeba.txt: number of pictures, names of the attributes, then a line each of 1 and -1 -> vectors of
      1 and 0;
    - two columns `file class` as in identity_CelebA.txt, or CSV `file,class`: whole numbers are class numbers, other
      words are classes numbered in alphabetical order.
    """
    try:
        data = read_file(path)
    except BadMember as e:
        raise UserError(f"--label-file={path} {e}") from e
    if data.lstrip()[:1] in (b"{", b"["):
        return LabelTable(parse_label_file(data, path) or {}, parse_classes(data))
    try:
        lines = data.decode("utf-8-sig").splitlines()
        rows = [row for row in _rows(lines) if row]
        if len(rows) > 2 and len(rows[0]) == 1 and rows[0][0].isdigit():
            return _attributes(rows)
        return _classes(rows)
    except (ValueError, csv.Error) as e:
        raise UserError(
            f"--label-file={path} ({os.path.basename(path)}) is no dataset.json, list_attr_celeba.txt, or list of "
            f"'file class' lines: {e}"
        ) from e


def _rows(lines: list[str]) -> list[list[str]]:
    if any("," in line for line in lines[:2]):
        return [[cell.strip() for cell in row] for row in csv.reader(lines)]
    return [line.split() for line in lines]


def _attributes(rows: list[list[str]]) -> LabelTable:
    width = len(rows[1])
    labels: dict[str, int | list[float]] = {}
    for row in rows[2:]:
        if len(row) != width + 1 or not set(row[1:]) <= {"1", "-1", "0"}:
            raise ValueError(f"the line of {row[0]} hasn't {width} values of 1 or -1")
        labels[row[0]] = [float(value == "1") for value in row[1:]]
    return LabelTable(labels, rows[1])


def _classes(rows: list[list[str]]) -> LabelTable:
    wrong = [row for row in rows if len(row) != 2]
    if wrong or not rows:
        raise ValueError(f"{' '.join(wrong[0])[:60]!r} is not a file and a class" if wrong else "it is empty")
    if not rows[0][1].isdigit() and all(row[1].isdigit() for row in rows[1:]) and len(rows) > 1:
        rows = rows[1:]  # a header
    if all(row[1].isdigit() for row in rows):
        return LabelTable({name: int(value) for name, value in rows})
    words = sorted({word for _, word in rows})
    numbers = {word: i for i, word in enumerate(words)}
    return LabelTable({name: numbers[word] for name, word in rows}, words)
