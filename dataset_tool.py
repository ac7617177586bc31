"""Makes a data set zip (or folder) from any data set of the field or any pictures.

\b
    python dataset_tool.py --source=cifar-10-python.tar.gz --dest=datasets/cifar10.zip
    python dataset_tool.py --source=photos/ --dest=photos.zip --transform=center-crop --width=256 --height=256
    python dataset_tool.py --source=photos/ --inspect
"""

import dnnlib.startup  # (first, because the other imports take seconds)

# isort: split
import contextlib
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any, TextIO

import click
from PIL import ImageColor

import dnnlib.cli
from dnnlib.errors import UserError
from dnnlib.plugins import import_file
from dnnlib.progress import tqdm
from training.conversion.convert import ConvertOptions, Report, convert
from training.conversion.converted import Encoder
from training.conversion.destination import check_destination
from training.conversion.inspection import contact_sheet, describe, inspect_source
from training.conversion.labels.kinds import describe_labels
from training.conversion.parallel import usable_cpus
from training.conversion.sources import Source, SourceOptions, notes_of, open_source
from training.conversion.text import printable
from training.conversion.transforms import FILTERS, KIND_NAMES, Transform

_CHANNELS = {"rgb": 3, "grey": 1}
_SHOWN_SKIPS = 20
_AUTO_SHEET = "SOURCE-contact-sheet.png"
POSITIVE = click.IntRange(min=1)


@click.command(cls=dnnlib.cli.Command, help=__doc__, no_args_is_help=True)
@click.option("--source", help="Folder, zip, CIFAR/STL-10/WebDataset tar, LMDB folder, idx file, Parquet",
              type=dnnlib.cli.PATH, required=True)  # fmt: skip
@click.option("--dest", help="Data set to write: FILE.zip or an empty or new folder", type=dnnlib.cli.PATH)
@click.option("--inspect", help=f"Only look: print what is there, save a contact sheet [default: {_AUTO_SHEET}]",
              type=dnnlib.cli.PATH, is_flag=False, flag_value=_AUTO_SHEET, metavar="[FILE.png]")  # fmt: skip
@click.option("--resolution", help="Output size; the same as --width and --height", metavar="WxH")
@click.option("--width", help="Output width in pixels; goes with --height", type=POSITIVE)
@click.option("--height", help="Output height in pixels; goes with --width", type=POSITIVE)
@click.option("--transform", help="How to fit other shapes [default: stretch]", type=click.Choice(KIND_NAMES))
@click.option("--resize-filter", help="Filter for resizing [default: lanczos]", type=click.Choice(list(FILTERS)))
@click.option("--background", help="Colour behind transparent parts and around fit-pad [default: white]")
@click.option("--channels", help="Pixel kind [default: grey for grey data sets, else rgb]",
              type=click.Choice(list(_CHANNELS)))  # fmt: skip
@click.option("--encode", help="Store latents of an autoencoder in place of pictures", type=click.Choice(["vae"]))
@click.option("--autoencoder", help="Folder that diffusers saved, or hf://ORGANISATION/NAME "
              "[default: $STYLELOOM_AUTOENCODER]")  # fmt: skip
@click.option("--max-images", help="Stop after so many images", type=POSITIVE)
@click.option("--shard-size", help="Write a folder of zips with so many images each", type=POSITIVE)
@click.option("--split", help="Parts to take, such as train+test, for data sets that have them")
@click.option("--folder-labels", help="Names of top-level folders are the classes", is_flag=True, default=None)
@click.option("--label-file", help="Labels: dataset.json, list_attr_celeba.txt, or lines of 'file class'",
              type=dnnlib.cli.PATH)  # fmt: skip
@click.option("--image-column", help="Column of pictures in a Parquet table")
@click.option("--label-column", help="Column of classes in a Parquet table")
@click.option("--num-workers", help="Processes [default: one per processor]", type=POSITIVE)
@click.option("--strict", help="Stop at the first unusable picture instead of skipping it", is_flag=True)
@click.option("--skip-list", help="Write the name of every skipped picture, and why, to this file",
              type=dnnlib.cli.PATH)  # fmt: skip
@click.option("--import", "plugins", help="Python file that registers sources", type=dnnlib.cli.PATH, multiple=True)
def main(
    source: str,
    dest: str | None,
    inspect: str | None,
    resolution: str | None,
    width: int | None,
    height: int | None,
    transform: str | None,
    resize_filter: str | None,
    background: str | None,
    channels: str | None,
    encode: str | None,
    autoencoder: str | None,
    max_images: int | None,
    shard_size: int | None,
    split: str | None,
    folder_labels: bool | None,
    label_file: str | None,
    image_column: str | None,
    label_column: str | None,
    num_workers: int | None,
    strict: bool,
    skip_list: str | None,
    plugins: tuple[str, ...],
) -> None:
    """Runs one conversion or inspection."""
    named = {"source": source, "dest": dest, "inspect": inspect, "label-file": label_file, "skip-list": skip_list}
    for option, path in named.items():
        if path == "":
            raise UserError(f"--{option}= is empty; give a path")
    if (dest is None) == (inspect is None):
        raise UserError("say either --dest=FILE.zip to convert or --inspect to look")
    for file in plugins:
        import_file(file)
    workers = num_workers or usable_cpus()
    chosen = SourceOptions(split, folder_labels, label_file, image_column, label_column)
    if inspect is not None:
        _refuse_with_inspect(resolution=resolution, width=width, height=height, transform=transform,
                             resize_filter=resize_filter, background=background, channels=channels,
                             encode=encode, autoencoder=autoencoder,
                             shard_size=shard_size, strict=strict or None, skip_list=skip_list)  # fmt: skip
        with _interruptible("nothing was written"):
            _inspect(_opened(source, chosen), _sheet_path(inspect, source), workers, max_images)
        return
    assert dest is not None  # one of the two is there
    check_destination(dest)
    width, height = _size(resolution, width, height)
    fitting = _transform(width, height, transform, resize_filter, background)
    channel_count = _CHANNELS[channels] if channels else None
    encoder = _encoder(encode, autoencoder, channel_count)
    options = ConvertOptions(fitting, channel_count, max_images, shard_size, strict, workers, encoder)
    with _interruptible(f"{dest} is as it was; the same command starts again"):
        _convert(_opened(source, chosen), dest, options, skip_list)


def _encoder(encode: str | None, place: str | None, channels: int | None) -> Encoder | None:
    if encode is None:
        if place is not None:
            raise UserError("--autoencoder is for --encode=vae")
        return None
    from training.conversion.encoding import LatentEncoder  # torch, which nothing else here needs

    found = LatentEncoder(place or "")
    if channels not in (None, found.channels):
        raise UserError(f"--channels: the autoencoder takes pictures of {found.channels} channels; leave it out")
    return found


@contextlib.contextmanager
def _interruptible(state: str) -> Iterator[None]:
    """Ctrl-C becomes one line and the exit status that shells expect."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"interrupted: {state}", err=True)
        sys.exit(130)


def _opened(path: str, options: SourceOptions) -> Source:
    source = open_source(path, options)
    for note in notes_of(source):
        click.echo(f"note: {printable(note, 300)}", err=True)
    return source


def _size(resolution: str | None, width: int | None, height: int | None) -> tuple[int | None, int | None]:
    if resolution is None:
        return width, height
    sides = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", resolution)
    if sides is None:
        raise UserError(f"--resolution={resolution} is no size; write it as WxH, such as 256x256")
    if width is not None or height is not None:
        raise UserError("--resolution and --width, --height say the same; give one of them")
    return int(sides[1]), int(sides[2])


def _refuse_with_inspect(**options: object) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise UserError(f"--{given[0].replace('_', '-')} means nothing with --inspect, which converts nothing")


def _transform(
    width: int | None, height: int | None, kind: str | None, resize_filter: str | None, background: str | None
) -> Transform:
    if (width is None) != (height is None):
        raise UserError("--width and --height go together; say both or neither")
    size = (width, height) if width is not None and height is not None else None
    if kind is not None and size is None:
        raise UserError(f"--transform={kind} needs --width and --height")
    if kind == "center-crop-wide" and size is not None and size[1] > size[0]:
        raise UserError("--transform=center-crop-wide wants a --height that doesn't exceed --width")
    if background is not None:
        _check_colour(background)
    said: dict[str, Any] = {"kind": kind, "resize_filter": resize_filter, "background": background}
    return Transform(size, **{name: value for name, value in said.items() if value is not None})


def _check_colour(name: str) -> None:
    try:
        ImageColor.getrgb(name)
    except ValueError as e:
        raise UserError(f"--background={name} is no colour; say a name such as black or #rrggbb") from e


def _convert(source: Source, dest: str, options: ConvertOptions, skip_list: str | None) -> None:
    with _open_list(skip_list) as log:
        skipped = _SkipPrinter(log)
        report = convert(source, dest, options, skipped.add)
    click.echo(_summary(report, dest, skipped, skip_list))
    for reason, count in skipped.reasons.most_common():
        click.echo(f"  {count} skipped: {reason}")
    for line in describe_labels(report.tally, source.classes):
        click.echo(line)


class _SkipPrinter:
    """Shows the first skipped pictures, and writes all of them to the list if there is one."""

    def __init__(self, log: TextIO | None):
        self._log = log
        self.count = 0
        self.reasons: Counter[str] = Counter()  # without what differs from picture to picture

    def add(self, name: str, reason: str) -> None:
        """Hears of one."""
        self.count += 1
        self.reasons[re.sub(r"\d+", "N", reason.split(" (")[0])] += 1
        if self._log:
            with _writing_list(self._log.name):
                self._log.write(f"{name}: {reason}\n")
        if self.count <= _SHOWN_SKIPS:
            tqdm.write(f"skipped {name}: {reason}", file=sys.stderr)  # above the progress bar, if there is one


@contextlib.contextmanager
def _open_list(path: str | None) -> Iterator[TextIO | None]:
    if path is None:
        yield None
        return
    with _writing_list(path):
        f = open(path, "w", encoding="utf-8")  # noqa: SIM115 - closed below
    try:
        yield f
    finally:
        with _writing_list(path):
            f.close()


@contextlib.contextmanager
def _writing_list(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise UserError(f"can't write --skip-list={path}: {e.strerror or e}") from e


def _summary(report: Report, dest: str, skipped: _SkipPrinter, skip_list: str | None) -> str:
    what = "latents of images of" if report.latents else "image of" if report.written == 1 else "images of"
    text = f"{report.written} {what} {report.shape} in {dest}"
    if report.labelled:
        text += ", with labels"
    if skipped.count:
        text += f"; {skipped.count} skipped"
        if skip_list:
            text += f", listed in {skip_list}"
        elif skipped.count > _SHOWN_SKIPS:
            text += f", the first {_SHOWN_SKIPS} shown above, all with --skip-list=FILE"
    return text


def _sheet_path(inspect: str, source: str) -> str:
    if inspect != _AUTO_SHEET:
        return inspect
    stem = os.path.basename(os.path.abspath(source)).split(".")[0]
    return f"{stem}-contact-sheet.png"


def _inspect(source: Source, sheet: str, workers: int, max_images: int | None) -> None:
    findings = inspect_source(source, workers, max_images)
    for line in describe(findings, source.classes):
        click.echo(line)
    try:
        contact_sheet(findings.thumbs).save(sheet, format="png")
    except OSError as e:
        raise UserError(f"can't write the contact sheet {sheet}: {e.strerror or e}") from e
    click.echo(f"contact sheet of {len(findings.thumbs)} pictures: {sheet}")


if __name__ == "__main__":
    main()
