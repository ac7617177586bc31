"""Which label belongs to which picture, when label files spell the pictures' names in ways of their own."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from dnnlib.errors import UserError
from training.dataset.labels import normal_name
from training.dataset.pictures import looks_like_picture

_DEPTH = 8  # folders above a picture that are compared at most, unless all are


class Matched(NamedTuple):
    """Labels by the pictures' own names, and what the user should hear of it."""

    labels: dict[str, int | list[float]]
    notes: list[str]


class _Rule(NamedTuple):
    """What of two names must be equal: the last `parts` parts (None: all), the suffix too or not (nor the case)."""

    parts: int | None
    with_suffix: bool

    def key(self, name: str) -> str:
        if self.parts is not None:
            name = "/".join(name.split("/")[-self.parts :])
        if self.with_suffix:
            return name
        return (name.rpartition(".")[0] if looks_like_picture(name) else name).casefold()

    def __str__(self) -> str:
        folders = "" if self.parts is None else f"the last {self.parts} parts of " if self.parts > 1 else "the end of "
        return f"{folders}their names{'' if self.with_suffix else ', without suffix and case'}"


def match_names(labels: dict[str, int | list[float]], names: Sequence[str], where: str) -> Matched:
    """Finds the label of each picture.

    Args:
        labels: file name, as `normal_name` gives it, -> label.
        names: of the pictures.
        where: the label file, for messages.

    Names must be equal; else parts of them: label files may leave out folders above or name more of them, and have
    another suffix. One rule holds for all; it is the strictest that fits most pictures. Raises UserError if no label
    fits a picture, or one fits several.
    """
    if not labels or not names:
        return Matched({}, [])
    pictures = {normal_name(name): name for name in names}
    best, chosen = max(((_fitting(rule, labels, pictures), rule) for rule in _rules(labels, pictures)),
                       key=lambda found: len(found[0]))  # fmt: skip
    _refuse_double(chosen, labels, pictures, best, where)
    if not best:
        raise UserError(
            f"{where}: none of its labels ({len(labels)}) fits a picture: it labels {next(iter(labels))!r}, "
            f"the first picture is {next(iter(names))!r}"
        )
    used = set(best.values())
    notes = []
    if chosen != _Rule(None, True):
        notes.append(f"{where}: labels and pictures were matched by {chosen}")
    missing = [name for normal, name in pictures.items() if normal not in best]
    if missing:
        notes.append(f"{where}: pictures without a label: {len(missing)} of {len(names)}, such as {missing[0]}")
    if len(used) < len(labels):
        idle = next(name for name in labels if name not in used)
        notes.append(f"{where}: labels that fit no picture: {len(labels) - len(used)} of {len(labels)}, such as {idle}")
    return Matched({pictures[normal]: labels[label] for normal, label in best.items()}, notes)


def _rules(labels: dict[str, int | list[float]], pictures: dict[str, str]) -> list[_Rule]:
    """From the strictest on. Ends early where that fits every picture, as it nearly always does."""
    if all(name in labels for name in pictures):
        return [_Rule(None, True)]
    depth = min(_DEPTH, max(name.count("/") + 1 for names in (labels, pictures) for name in names))
    return [_Rule(parts, suffix) for suffix in (True, False) for parts in (None, *range(depth, 0, -1))]


def _fitting(rule: _Rule, labels: dict[str, int | list[float]], pictures: dict[str, str]) -> dict[str, str]:
    """Picture -> label's name, where one label (or several that agree) and one picture have the same key."""
    by_key: dict[str, str] = {}
    disputed = set()
    for label in labels:
        first = by_key.setdefault(rule.key(label), label)
        if labels[first] != labels[label]:
            disputed.add(rule.key(label))
    keys = {name: rule.key(name) for name in pictures}
    counts = Counter(keys.values())
    return {n: by_key[k] for n, k in keys.items() if k in by_key and counts[k] == 1 and k not in disputed}


def _refuse_double(
    rule: _Rule, labels: dict[str, int | list[float]], pictures: dict[str, str], best: dict[str, str], where: str
) -> None:
    """UserError if pictures stay without a label because one label fits several of them."""
    if len(best) == len(pictures):
        return
    loose = _Rule(1, True)
    ends = Counter(loose.key(name) for name in pictures)
    plain = {loose.key(label) for label in labels if "/" not in label}
    for name in pictures:
        end = loose.key(name)
        if name not in best and end in plain and ends[end] > 1:
            others = [n for n in pictures if loose.key(n) == end][:2]
            raise UserError(f"{where}: the label of {end} fits both {others[0]} and {others[1]}; name the folders, too")
