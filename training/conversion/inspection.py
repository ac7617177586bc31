"""A look at a source before anyone converts it: counts, sizes, modes, classes, duplicates, a contact sheet."""

import contextlib
import hashlib
import itertools
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageOps

from dnnlib.errors import UserError
from training.conversion.convert import progress_bar, readable_items
from training.conversion.labels.kinds import Label, LabelTally, describe_labels
from training.conversion.parallel import ordered_map
from training.conversion.sources.base import Item, Source
from training.conversion.text import printable
from training.dataset.pictures import BadPicture, flatten

THUMB, COLUMNS, ROWS = 96, 12, 8  # pixels, thumbnails a row, rows
_GAP = 4
_SHOWN = 10  # lines of any list


@dataclass
class Findings:
    """What a source holds."""

    count: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # (width, height), pixels
    modes: Counter[str] = field(default_factory=Counter)  # Pillow's mode names
    tally: LabelTally = field(default_factory=LabelTally)
    unlabelled: int = 0
    reasons: Counter[str] = field(default_factory=Counter)  # of unusable pictures
    unusable: list[str] = field(default_factory=list)  # the first of them
    duplicates: int = 0  # pictures whose pixels another one has too
    thumbs: list[Image.Image] = field(default_factory=list)


@dataclass
class _Seen:
    """One picture as a worker saw it."""

    name: str
    label: Label
    reason: str = ""
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    digest: int = 0
    thumb: np.ndarray | None = None


def inspect_source(source: Source, workers: int = 1, max_images: int | None = None) -> Findings:
    """Looks at every picture of `source`, or the first `max_images`. Memory: 8 bytes a picture."""
    findings = Findings()
    digests = array("Q")
    wanted = COLUMNS * ROWS
    step = max(1, min(source.total or wanted, max_images or source.total or wanted) // wanted)
    items = (
        (item, index % step == 0) for index, item in enumerate(itertools.islice(readable_items(source), max_images))
    )
    with contextlib.closing(ordered_map(_look, items, workers, _cost)) as results, progress_bar(source.total) as bar:
        for seen in results:
            bar.update()
            if seen.reason:
                findings.reasons[seen.reason.split(" (")[0]] += 1
                if len(findings.unusable) < _SHOWN:
                    findings.unusable.append(f"{printable(seen.name)}: {seen.reason}")
                continue
            findings.count += 1
            findings.sizes[seen.size] += 1
            findings.modes[seen.mode] += 1
            _count_label(findings, seen)
            digests.append(seen.digest)
            if seen.thumb is not None and len(findings.thumbs) < wanted:
                findings.thumbs.append(Image.fromarray(seen.thumb))
    findings.duplicates = len(digests) - len(np.unique(np.frombuffer(digests, np.uint64))) if digests else 0
    return findings


def _count_label(findings: Findings, seen: _Seen) -> None:
    if seen.label is None:
        findings.unlabelled += 1
        return
    try:
        findings.tally.add(seen.label)
    except UserError as e:
        raise UserError(f"the label of {printable(seen.name)}: {e}") from e


def describe(findings: Findings, classes: list[str]) -> Iterator[str]:
    """The findings as lines of text."""
    yield f"pictures: {findings.count}, unusable: {findings.reasons.total()}"
    sizes = {f"{w}x{h}": n for (w, h), n in findings.sizes.most_common()}
    yield from _counts("sizes", sizes)
    if len(findings.sizes) > 1:
        widths, heights = zip(*findings.sizes)
        yield f"  from {min(widths)}x{min(heights)} to {max(widths)}x{max(heights)}"
    yield from _counts("modes", dict(findings.modes.most_common()))
    yield from describe_labels(findings.tally, classes)
    if findings.unlabelled and findings.unlabelled < findings.count:
        yield f"without label: {findings.unlabelled}"
    yield f"pixel-identical duplicates: {findings.duplicates}"
    yield from _counts("unusable because", dict(findings.reasons.most_common()))
    yield from (f"  {line}" for line in findings.unusable)


def contact_sheet(thumbs: list[Image.Image]) -> Image.Image:
    """Thumbnails in reading order on grey. Raises UserError if there is none."""
    if not thumbs:
        raise UserError("there is no usable picture to show")
    columns = min(COLUMNS, len(thumbs))
    rows = -(-len(thumbs) // columns)
    cell = THUMB + _GAP
    sheet = Image.new("RGB", (columns * cell + _GAP, rows * cell + _GAP), "gray")
    for index, thumb in enumerate(thumbs):
        row, column = divmod(index, columns)
        left = _GAP + column * cell + (THUMB - thumb.width) // 2
        top = _GAP + row * cell + (THUMB - thumb.height) // 2
        sheet.paste(thumb, (left, top))
    return sheet


def _cost(job: tuple[Item, bool]) -> int:
    return job[0].picture.cost


def _look(job: tuple[Item, bool]) -> _Seen:
    """Runs in the worker processes."""
    item, with_thumb = job
    try:
        image = item.picture.open()
        flat = flatten(image, 3, "white")
    except BadPicture as e:
        return _Seen(item.name, item.label, str(e))
    digest = hashlib.blake2b(f"{flat.size}".encode() + flat.tobytes(), digest_size=8).digest()
    thumb = np.asarray(ImageOps.contain(flat, (THUMB, THUMB))) if with_thumb else None
    return _Seen(item.name, item.label, "", image.size, image.mode, int.from_bytes(digest, "big"), thumb)


def _counts(title: str, counts: dict[str, int]) -> Iterator[str]:
    if counts:
        shown = [f"{name} ({count})" for name, count in itertools.islice(counts.items(), _SHOWN)]
        rest = len(counts) - len(shown)
        yield f"{title}: {', '.join(shown)}" + (f" and {rest} more" if rest else "")
