"""Which labels a data set may have: class numbers, or vectors of one length. Decided when it is made."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from dnnlib.errors import UserError
from training.conversion.text import printable
from training.dataset.labels import CLASS_LIMIT

Label = int | list[float] | None
_RULE = "labels are class numbers from 0 on, or numbers with fractions, or lists of numbers of one length"
_FLOAT32 = 3.4e38  # the largest number that training can hold; NaN is not below it
_SHOWN_CLASSES, _SHOWN_GAPS = 100, 10
_DIGITS = re.compile(r"(\d+)")


def settle_labels(values: Mapping[str, Any], where: str) -> dict[str, int | list[float]]:
    """The labels of a table (file name -> what stands there) as a data set has them.

    Whole numbers are classes, also where they are written as 2.0; if any number has a fraction, all are continuous
    labels, vectors of length 1; lists are vectors. None is no label. Raises UserError, naming a file, for all else.
    """
    labels = {name: value for name, value in values.items() if value is not None}
    numbers = all(_is_number(value) for value in labels.values())
    if numbers and not all(float(value).is_integer() for value in labels.values()):
        labels = {name: [float(value)] for name, value in labels.items()}
    tally = LabelTally()
    for name, value in labels.items():
        labels[name] = label = _as_label(value)
        try:
            tally.add(label)
        except UserError as e:
            raise UserError(f"{where}: the label of {name}: {e}") from e
    return labels


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 2**53  # so not NaN either


def _as_label(value: Any) -> Any:
    if _is_number(value):
        return int(value)
    if isinstance(value, list) and all(_is_number(number) for number in value):
        return [float(number) for number in value]
    return value


class LabelTally:
    """Holds that all labels are of one kind that training takes, and counts the classes."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()  # pictures of each class
        self.length: int | None = None  # of the vectors; 0: classes; None: there was no label yet

    def add(self, label: Any) -> None:
        """Raises UserError if the label is none, or not of the kind of those before it."""
        length = _length(label)
        if self.length not in (None, length):
            kinds = [f"a vector of length {n}" if n else "a class" for n in (length, self.length)]
            raise UserError(f"{label!r:.60} is {kinds[0]}, those before it {kinds[1]}; {_RULE}")
        self.length = length
        if not length:
            self.counts[label] += 1


def _length(label: Any) -> int:
    """0 for a class, else the length of the vector."""
    if type(label) is int and label >= 0:
        if label >= CLASS_LIMIT:
            raise UserError(f"class {label!r:.20} is beyond {CLASS_LIMIT - 1}, the largest allowed")
        return 0
    if type(label) is list and label and all(type(x) in (int, float) and abs(x) < _FLOAT32 for x in label):
        return len(label)
    raise UserError(f"{label!r:.60} can't be used; {_RULE}")


def in_class_order(names: set[str]) -> list[str]:
    """Names of classes as people sort them: the numbers in them by value, so 2 comes before 10."""
    return sorted(names, key=_by_numbers)


def _by_numbers(name: str) -> tuple[list[Any], str]:
    parts: list[Any] = _DIGITS.split(name)  # text and digits take turns, so equal places compare
    for at in range(1, len(parts), 2):
        digits = parts[at].lstrip("0")
        parts[at] = (len(digits), digits)
    return parts, name


def describe_labels(tally: LabelTally, classes: list[str]) -> Iterator[str]:
    """The class table, or the kind of the vectors, as lines of text; none without labels."""
    if tally.length:
        yield f"labels: vectors of length {tally.length}"
    if tally.length != 0:
        return
    yield f"classes: {len(tally.counts)}"
    for number in sorted(tally.counts)[:_SHOWN_CLASSES]:
        name = f" {printable(classes[number])}" if number < len(classes) else ""
        yield f"  {number}{name}: {tally.counts[number]}"
    if len(tally.counts) > _SHOWN_CLASSES:
        yield f"  and {len(tally.counts) - _SHOWN_CLASSES} more"
    count = max(max(tally.counts) + 1, len(classes))
    gaps = [str(number) for number in range(count) if number not in tally.counts]
    if gaps:
        rest = f" and {len(gaps) - _SHOWN_GAPS} more" if len(gaps) > _SHOWN_GAPS else ""
        yield f"  without any picture: {', '.join(gaps[:_SHOWN_GAPS])}{rest}"
