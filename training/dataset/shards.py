"""A folder of data set zips (shards) seen as one data set."""

import os

import numpy as np

from dnnlib.errors import UserError
from training.dataset.folder_reader import files_with_suffix, holds_pictures
from training.dataset.zip_reader import ZipReader


class ShardReader:
    """The members of all `*.zip` files in the folder `path`, in the order of the files' names.

    A member's name is `SHARD/NAME`, SHARD without `.zip`, so names and `dataset.json` of different shards don't clash.
    """

    def __init__(self, path: str):
        self.path = path
        files = files_with_suffix(path, ".zip")
        if not files:
            raise UserError(f"{path} holds no .zip files")
        self._shards = [ZipReader(file) for file in files]
        self._shard_names = [os.path.basename(file)[:-4] for file in files]
        self._starts = np.concatenate([[0], np.cumsum([len(s) for s in self._shards])])

    @staticmethod
    def is_sharded(path: str) -> bool:
        """True if the folder holds zips and no picture."""
        return bool(files_with_suffix(path, ".zip")) and not holds_pictures(path)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def names(self) -> list[str]:
        """All member names in order."""
        return [f"{name}/{m}" for name, shard in zip(self._shard_names, self._shards) for m in shard.names()]

    def name(self, index: int) -> str:
        """The member's name."""
        shard, member = self._locate(index)
        number = self._shards.index(shard)
        return f"{self._shard_names[number]}/{shard.name(member)}"

    def shard_names(self) -> list[str]:
        """The shards' names without `.zip`."""
        return self._shard_names

    def crc(self, index: int) -> int:
        """CRC-32 of the member as its archive states it."""
        shard, member = self._locate(index)
        return shard.crc(member)

    def read(self, index: int) -> bytes:
        """The member's bytes; raises BadMember as ZipReader does."""
        shard, member = self._locate(index)
        return shard.read(member)

    def head(self, index: int, count: int) -> bytes:
        """At least the first `count` bytes of the member, or all of it."""
        shard, member = self._locate(index)
        return shard.head(member, count)

    def _locate(self, index: int) -> tuple[ZipReader, int]:
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._shards[number], index - int(self._starts[number])
