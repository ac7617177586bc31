"""A data set for training and metrics: a zip, a folder, or a folder of zips (shards), read by batches of indices. It
holds pictures, or their latents."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from dnnlib.cli import command_line
from dnnlib.errors import UserError
from dnnlib.hub import fetch as hub_file
from dnnlib.hub import is_hub
from training.dataset.decoding import ImageShape
from training.dataset.embedded import located
from training.dataset.folder_reader import FolderReader
from training.dataset.kinds import DESCRIPTION, kind_of
from training.dataset.kinds.cache import DecodedCache
from training.dataset.kinds.latents import StoredLatents, thumbnail_name
from training.dataset.known_data import missing_data_advice
from training.dataset.labels import LABEL_FILE, Labels, match_labels, normal_name, parse_label_file
from training.dataset.pictures import BadPicture, decode
from training.dataset.shards import ShardReader
from training.dataset.zip_reader import BadMember, ZipReader

_EXAMPLES, _EXAMPLE_NUMBERS = 256, 16384  # label vectors that a network file keeps, and their numbers, at most


class FileReader(Protocol):
    """What holds the files of a data set."""

    path: str

    def __len__(self) -> int: ...
    def names(self) -> list[str]: ...
    def crc(self, index: int) -> int: ...
    def read(self, index: int) -> bytes: ...
    def head(self, index: int, count: int) -> bytes: ...


def open_dataset(
    path: str | os.PathLike[str],
    use_labels: bool = False,
    max_size: int | None = None,
    xflip: bool = False,
    seed: int = 0,
) -> "ImageDataset":
    """Opens the data set at `path`: a zip, a folder of images, or a folder of zips written by --shard-size.

    Args:
        path: a leading `~` is expanded; hf://owner/name[/file.zip] is a zip on the Hugging Face Hub.
        use_labels: give out the labels of dataset.json; UserError if there are none.
        max_size: use only so many images, drawn with `seed`; counted before `xflip` doubles them.
        xflip: append a mirrored copy of every image.
        seed: of that draw.

    Raises UserError if there is nothing at `path` (with the command that makes the known data sets), or it is no
    data set, or its images differ in size or channels, or its labels don't match its images.
    """
    if is_hub(path):
        path = hub_file(str(path), "dataset", (".zip",))
    full_path = os.path.abspath(os.path.expanduser(located(os.fspath(path))))
    reader = _open_reader(full_path, os.fspath(path))
    return ImageDataset(reader, use_labels, max_size, xflip, seed)


class ImageDataset:
    """Images of one shape with their labels. Made by `open_dataset`; may be pickled (the cache stays behind)."""

    def __init__(self, reader: FileReader, use_labels: bool, max_size: int | None, xflip: bool, seed: int):
        self._reader = reader
        names = reader.names()
        self._kind = kind_of(self._descriptions(names), reader.path)
        if xflip and not self._kind.may_mirror:
            raise UserError(f"{reader.path} holds latents, which can't be mirrored; convert mirrored pictures too")
        self._members = np.array([i for i, name in enumerate(names) if self._kind.holds(name)], np.int64)
        if not len(self._members):
            raise UserError(f"{reader.path} holds no images; make a data set of yours with dataset_tool.py")
        self._shape = self._common_shape(names)
        self._labels = self._read_labels(names) if use_labels else None
        self._select = _draw_subset(len(self._members), max_size, seed)
        self._xflip = xflip
        self._cache = self._new_cache(len(self._select))

    def __len__(self) -> int:
        return len(self._select) * (2 if self._xflip else 1)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._cache = self._new_cache(len(self._select))

    @property
    def path(self) -> str:
        """Where the data set lies."""
        return self._reader.path

    @property
    def name(self) -> str:
        """The file's or folder's name without `.zip`."""
        base = os.path.basename(self._reader.path.rstrip("/\\"))
        return base[:-4] if base.lower().endswith(".zip") else base

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what networks see: of latents, C is that of the latents and not of the stored moments."""
        return self._kind.network_shape(self._shape)

    @property
    def space(self) -> dict[str, Any]:
        """The config of the image space that networks trained on this work in, as plain data."""
        return self._kind.space

    @property
    def label_dim(self) -> int:
        """Length of a label: number of classes or of vector elements; 0 without labels."""
        return self._labels.dim if self._labels else 0

    def unmirrored(self) -> "ImageDataset":
        """The same images without mirrored copies. Shares the open files, checked headers, labels and decoded images,
        so it costs nothing; itself if there are no mirrored copies."""
        if not self._xflip:
            return self
        view = ImageDataset.__new__(ImageDataset)  # not copy.copy, which leaves the cache behind as pickling does
        view.__dict__.update(self.__dict__, _xflip=False)
        return view

    def left_out(self) -> "ImageDataset":
        """The images that `max_size` left out, unmirrored and without labels; UserError if there are none."""
        others = np.setdiff1d(np.arange(len(self._members)), self._select)
        if not len(others):
            raise UserError(f"{self.path}: all of its {len(self._members)} images are used, none is left out")
        view = ImageDataset.__new__(ImageDataset)
        cache = self._new_cache(len(others))
        view.__dict__.update(self.__dict__, _xflip=False, _labels=None, _select=others, _cache=cache)
        return view

    def load(self, indices: Sequence[int] | np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """-> images uint8 [N, C, H, W], or of latents the moments float32 [N, 2 C, H, W]; labels float32 [N,
        label_dim]. Raises UserError naming a damaged image."""
        wanted = np.asarray(indices, np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"indices must lie in 0..{len(self) - 1}")
        mirrored, positions = np.divmod(wanted, len(self._select))
        images = np.empty((len(wanted), *self._shape), self._kind.dtype)
        for row in np.argsort(positions, kind="stable"):  # neighbours in the file one after the other
            pixels = self._pixels(int(positions[row]))
            images[row] = pixels[:, :, ::-1] if mirrored[row] else pixels
        return torch.from_numpy(images), torch.from_numpy(self._label_rows(positions))

    def thumbnails(self, indices: Sequence[int] | np.ndarray) -> torch.Tensor | None:
        """Small pictures of what latents are of, uint8 [N, C, H', W']; None where pictures are stored."""
        if not isinstance(self._kind, StoredLatents):
            return None
        names, found = self._reader.names(), []
        places = {name: i for i, name in enumerate(names)}
        for position in np.asarray(indices, np.int64) % len(self._select):
            member = int(self._members[self._select[position]])
            shown = places.get(thumbnail_name(names[member]))
            if shown is None:
                raise self._damaged(member, BadMember("it has no thumbnail"))
            try:
                found.append(decode(self._read_member(shown)).transpose(2, 0, 1))
            except BadPicture as e:
                raise self._damaged(shown, e) from e
        if len({picture.shape for picture in found}) > 1:
            raise UserError(f"{self._reader.path} mixes thumbnails of several sizes; convert with dataset_tool.py")
        return torch.from_numpy(np.stack(found))

    def labels(self, indices: Sequence[int] | np.ndarray) -> torch.Tensor:
        """-> float32 [N, label_dim], without decoding any image."""
        return torch.from_numpy(self._label_rows(np.asarray(indices, np.int64) % len(self._select)))

    def label_examples(self) -> dict[str, Any] | None:
        """What a network file says of the labels it was trained on, as plain data: {"classes": count}, or {"vectors":
        some of them}; None without labels."""
        if self._labels is None:
            return None
        if self._labels.are_classes:
            return {"classes": self._labels.dim}
        vectors = self._labels.values[self._select]
        count = min(len(vectors), max(_EXAMPLE_NUMBERS // vectors.shape[1], 1), _EXAMPLES)
        chosen = np.linspace(0, len(vectors) - 1, count).astype(np.int64)
        return {"vectors": vectors[chosen].tolist()}

    def content_hash(self) -> str:
        """SHA-256 (hex) over names and CRC-32s of the chosen images in order, their labels if used, and the x-flip.

        A zip and a folder with the same files agree. It isn't proof against forgery.
        """
        digest = hashlib.sha256(f"{tuple(self._shape)} xflip={self._xflip}\n".encode())
        digest.update(self.space.get("digest", "").encode())  # what an autoencoder makes of latents depends on it
        names = self._reader.names()
        for member in self._members[self._select]:
            try:
                digest.update(f"{self._reader.crc(int(member)):08x} {names[member]}\n".encode(errors="replace"))
            except BadMember as e:
                raise self._damaged(int(member), e) from e
        if self._labels:
            digest.update(np.ascontiguousarray(self._labels.values[self._select]).tobytes())
        return digest.hexdigest()

    def _label_rows(self, positions: np.ndarray) -> np.ndarray:
        if self._labels is None:
            return np.zeros((len(positions), 0), np.float32)
        return self._labels.rows(self._select[positions])

    def _pixels(self, position: int) -> np.ndarray:
        """uint8 [C, H, W] of one chosen image."""
        cached = self._cache.get(position)
        if cached is not None:
            return cached
        member = int(self._members[self._select[position]])
        try:
            pixels = self._kind.decode(self._reader.read(member)).transpose(2, 0, 1)
        except (BadMember, BadPicture) as e:
            raise self._damaged(member, e) from e
        if pixels.shape != tuple(self._shape):
            raise self._mixed(self._reader.names()[member], ImageShape(*pixels.shape), self._shape)
        self._cache.put(position, pixels)
        return pixels

    def _common_shape(self, names: list[str]) -> ImageShape:
        """The shape of all images by their headers; UserError if one differs."""
        first: ImageShape | None = None
        for member in map(int, self._members):
            try:
                shape = self._kind.shape(self._reader.head(member, self._kind.head_bytes), is_whole=False)
                shape = shape or self._kind.shape(self._reader.read(member), is_whole=True)
            except (BadMember, BadPicture) as e:
                raise self._damaged(member, e) from e
            assert shape is not None
            first = first or shape
            if shape != first:
                raise self._mixed(names[member], shape, first)
        assert first is not None
        return first

    def _read_labels(self, names: list[str]) -> Labels:
        labels: dict[str, Any] = {}
        for index, name in enumerate(names):
            folder, _, base = name.rpartition("/")
            if base == LABEL_FILE and folder in ("", *self._label_folders()):
                prefix = f"{folder}/" if folder else ""
                found = parse_label_file(self._read_member(index), self._reader.path, len(self._members))
                labels.update({normal_name(prefix + k): v for k, v in (found or {}).items()})
        if not labels:
            raise UserError(
                f"{self._reader.path} has no labels (dataset.json); train without --cond or convert with labels"
            )
        return match_labels(labels, [names[m] for m in self._members], self._reader.path)

    def _descriptions(self, names: list[str]) -> dict[str, bytes]:
        """The files that say what is stored, in the data set or each of its shards; none where it is pictures."""
        places = {DESCRIPTION, *(f"{folder}/{DESCRIPTION}" for folder in self._label_folders())}
        return {name: self._read_member(i) for i, name in enumerate(names) if name in places}

    def _new_cache(self, count: int) -> DecodedCache:
        return DecodedCache(count, self._shape, self._kind.dtype)

    def _label_folders(self) -> Iterable[str]:
        """Shards bring their own dataset.json each."""
        return self._reader.shard_names() if isinstance(self._reader, ShardReader) else ()

    def _read_member(self, index: int) -> bytes:
        try:
            return self._reader.read(index)
        except BadMember as e:
            raise self._damaged(index, e) from e

    def _damaged(self, member: int, reason: Exception) -> UserError:
        name, why = self._reader.names()[member], " ".join(str(reason).split())
        return UserError(f"{self._reader.path}: {name} can't be read ({why}); convert with dataset_tool.py")

    def _mixed(self, name: str, shape: ImageShape, expected: ImageShape) -> UserError:
        return UserError(
            f"{self._reader.path} mixes sizes: {name} is {shape}, the images before it are {expected}; "
            "convert with dataset_tool.py --width=W --height=H"
        )


def _open_reader(path: str, given: str) -> FileReader:
    if os.path.isdir(path):
        return ShardReader(path) if ShardReader.is_sharded(path) else FolderReader(path)
    if not os.path.isfile(path):
        raise UserError(f"there is no data set at {given}; {missing_data_advice(path)}")
    if not path.lower().endswith(".zip"):
        raise UserError(f"{given} is no data set (a zip or a folder); convert it: {_convert_command(given)}")
    return ZipReader(path)


def _convert_command(path: str) -> str:
    return f"{command_line('dataset_tool.py')} --source={path} --dest=datasets/NAME.zip"


def _draw_subset(count: int, max_size: int | None, seed: int) -> np.ndarray:
    """Sorted positions of the images to use, int64."""
    if max_size is None or max_size >= count:
        return np.arange(count)
    if max_size < 1:
        raise UserError(f"a subset needs at least 1 image, not {max_size}")
    return np.sort(np.random.RandomState(seed % 2**32).permutation(count)[:max_size])
