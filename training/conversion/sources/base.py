"""What a source of pictures is."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from training.conversion.labels.kinds import Label
from training.conversion.picture import Picture

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".parquet", ".mdb")


class Item(NamedTuple):
    """One picture of a source."""

    name: str  # for messages
    label: Label  # class number, vector, or None
    picture: Picture


class Source(Protocol):
    """A stream of pictures in an order that never changes, read in constant memory."""

    total: int | None  # number of items, None if only reading all would tell
    channels: int  # 1 if all its pictures are grey, else 3
    classes: list[str]  # class names by number; empty if unknown
    # A source may also have `notes: list[str]`, lines that the user should read before the conversion.

    def items(self) -> Iterator[Item]:
        """All pictures, from the first on; may be called again."""


@dataclass
class SourceOptions:
    """What a user may say about a source. None means: not said."""

    split: str | None = None  # "train", "test", "train+test", "train+unlabeled"...
    folder_labels: bool | None = None  # top-level folders are classes
    label_file: str | None = None  # labels by file name
    image_column: str | None = None  # of a Parquet table
    label_column: str | None = None


def unsafe_name(name: str) -> str | None:
    """Why no program should write to this name from an archive; None if it is harmless.

    Nothing here writes to such names anyway; an archive that has them was made to do harm, so they are left out.
    """
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name):
        return "unsafe path"
    if "\0" in name:
        return "unsafe name"
    return None


def notes_of(source: Source) -> list[str]:
    """What a source wants the user to read."""
    return getattr(source, "notes", [])


def is_clutter(name: str) -> bool:
    """Files that systems and programs leave beside pictures; nobody wants to hear of them."""
    parts = name.split("/")
    hidden = any(part.startswith(".") and part not in (".", "..") for part in parts)
    return hidden or parts[0] == "__MACOSX" or parts[-1] in ("Thumbs.db", "desktop.ini")
