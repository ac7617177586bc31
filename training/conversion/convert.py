"""Source -> data set: decode, transform and encode in parallel, write in order."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from dnnlib.errors import UserError
from dnnlib.progress import tqdm
from training.conversion.converted import Converted, Encoder
from training.conversion.destination import DatasetWriter, open_destination
from training.conversion.labels.kinds import LabelTally
from training.conversion.parallel import ordered_map
from training.conversion.png import encode_png
from training.conversion.sources.base import Item, Source
from training.conversion.text import one_line, printable
from training.conversion.transforms import Transform
from training.dataset.decoding import ImageShape
from training.dataset.pictures import BadPicture, flatten


@dataclass
class ConvertOptions:
    """What the data set shall look like."""

    transform: Transform = field(default_factory=Transform)
    channels: int | None = None  # 1 or 3; None: as the source has them
    max_images: int | None = None  # stop after so many
    shard_size: int | None = None  # images per zip, for a folder of zips
    strict: bool = False  # the first unusable picture ends the conversion
    workers: int = 1  # processes
    encoder: Encoder | None = None  # store latents in place of pictures


@dataclass
class Report:
    """What became of the pictures."""

    written: int = 0
    labelled: int = 0
    tally: LabelTally = field(default_factory=LabelTally)  # of the labels
    shape: ImageShape | None = None
    skipped: int = 0
    latents: bool = False  # stored in place of pictures


def convert(
    source: Source, dest: str, options: ConvertOptions, on_skip: Callable[[str, str], None], progress: bool = True
) -> Report:
    """Converts `source` to the data set `dest`. The same bytes come out for any number of workers.

    `on_skip(name, reason)` hears of every picture left out, in the source's order. Raises UserError, leaving `dest`
    as it was, if nothing can be converted, the sizes differ and no size is asked for, some images have labels and
    some don't, or, with `strict`, a picture is unusable.
    """
    encoder = options.encoder
    channels = options.channels or (encoder.channels if encoder else source.channels)
    work = functools.partial(_convert_item, options.transform, channels)
    report = Report(latents=encoder is not None)
    with open_destination(dest, options.shard_size) as writer:
        writer.classes = source.classes
        writer.description = encoder.description if encoder else None
        pictures = ordered_map(work, readable_items(source), options.workers, _cost)
        # closing() ends the worker processes before the destination is tidied up, also after an error.
        with contextlib.closing(pictures), progress_bar(_expected(source, options), progress) as bar:
            for result in encoder.encoded(pictures) if encoder else pictures:
                if result.shape is None:
                    _skip(result, options.strict, on_skip, report)
                else:
                    _write(result, writer, report)
                bar.update()
                if options.max_images is not None and report.written >= options.max_images:
                    break
    return report


def readable_items(source: Source) -> Iterator[Item]:
    """The items of `source`; what the system says against reading them is a UserError, so that nobody takes it for
    trouble with the destination."""
    try:
        yield from source.items()
    except OSError as e:
        raise UserError(f"can't read the source any further: {e.strerror or one_line(e)}") from e


def _cost(item: Item) -> int:
    return item.picture.cost


def _convert_item(transform: Transform, channels: int, item: Item) -> Converted:
    """Runs in the worker processes."""
    try:
        image = transform.apply(flatten(item.picture.open(), channels, transform.background))
    except BadPicture as e:
        return Converted(item.name, item.label, reason=str(e))
    shape = ImageShape(channels, image.height, image.width)
    return Converted(item.name, item.label, encode_png(np.asarray(image)), shape)


def _skip(result: Converted, strict: bool, on_skip: Callable[[str, str], None], report: Report) -> None:
    if strict:
        raise UserError(f"{printable(result.name)}: {result.reason}; without --strict it would be skipped")
    report.skipped += 1
    on_skip(printable(result.name), result.reason)


def _write(result: Converted, writer: DatasetWriter, report: Report) -> None:
    if report.shape is None:
        report.shape = result.shape
    if result.shape != report.shape:
        raise UserError(
            f"the pictures differ in size: {printable(result.name)} is {result.shape}, those before it are "
            f"{report.shape}; say --width=W --height=H"
        )
    try:
        writer.add(result.png, result.label, result.moments)
    except UserError as e:
        raise UserError(f"the label of {printable(result.name)}: {e}") from e
    report.written = writer.count
    report.labelled, report.tally = writer.labelled, writer.tally


def _expected(source: Source, options: ConvertOptions) -> int | None:
    if options.max_images is None:
        return source.total
    return min(source.total or options.max_images, options.max_images)


def progress_bar(total: int | None, wanted: bool = True) -> tqdm:
    """Counts pictures on stderr, if that is a terminal."""
    return tqdm(total=total, unit="img", dynamic_ncols=True, disable=None if wanted else True)
