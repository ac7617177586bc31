"""Data sets of latents: for every picture mean and standard deviation of its latent as an .npy file, a thumbnail, and
a file that says which autoencoder they are of."""

import io
import json
from typing import Any

import numpy as np

from dnnlib.errors import UserError
from training.dataset.decoding import ImageShape
from training.dataset.pictures import BadPicture

DESCRIPTION = "latents.json"  # {"kind": "latents", "autoencoder": place, "digest": SHA-256, "scale": ..., ...}
SUFFIX = ".npy"
_THUMBNAILS = "thumbnails"
_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER_LIMIT = 1000  # bytes; what numpy writes for such arrays has 128


class StoredLatents:
    """Moments, float32: means, then standard deviations."""

    dtype = np.float32
    head_bytes = 128  # what numpy's header takes
    may_mirror = False

    def __init__(self, descriptions: dict[str, bytes], where: str):
        found = [_parsed(data, f"{where}: {name}") for name, data in descriptions.items()]
        if any(other != found[0] for other in found[1:]):
            raise UserError(f"{where}: its shards hold latents of different autoencoders; convert them together")
        self.space = found[0]

    def holds(self, name: str) -> bool:
        return name.endswith(SUFFIX)

    def shape(self, data: bytes, is_whole: bool) -> ImageShape | None:
        if not is_whole and len(data) < _numbers_start(data):
            return None
        return ImageShape(*_header(data)[0])

    def decode(self, data: bytes) -> np.ndarray:
        shape, start = _header(data)
        if len(data) - start != 4 * int(np.prod(shape)):
            raise BadPicture("damaged: its size is not what its header says")
        moments = np.frombuffer(data, "<f4", offset=start).reshape(shape)
        if not np.isfinite(moments).all() or (moments[shape[0] // 2 :] < 0).any():
            raise BadPicture("damaged: its numbers are no moments")
        return moments.transpose(1, 2, 0)

    def network_shape(self, shape: ImageShape) -> tuple[int, int, int]:
        return shape.channels // 2, shape.height, shape.width


def latent_name(picture: str) -> str:
    """`00000/img00000000.png` -> `00000/img00000000.npy`."""
    return picture.rpartition(".")[0] + SUFFIX


def thumbnail_name(name: str) -> str:
    """`00000/img00000000.npy` -> `00000/thumbnails/img00000000.png`."""
    folder, _, base = name.rpartition("/")
    return f"{folder}/{_THUMBNAILS}/".lstrip("/") + base.removesuffix(SUFFIX) + ".png"


def encode_moments(moments: np.ndarray) -> bytes:
    """float32 [2 C, H, W] -> an .npy file, the same bytes for the same numbers."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(moments, "<f4"), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _numbers_start(data: bytes) -> int:
    """Bytes before an .npy file's numbers. Raises BadPicture for other files."""
    start = 10 + int.from_bytes(data[8:10], "little")
    if not data.startswith(_MAGIC) or start > _HEADER_LIMIT:
        raise BadPicture("no .npy file of moments")
    return start


def _header(data: bytes) -> tuple[tuple[int, int, int], int]:
    """Shape [2 C, H, W] and where the numbers begin. Raises BadPicture for any other array."""
    start = _numbers_start(data)
    stream = io.BytesIO(data[8:start])
    try:
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    except (ValueError, SyntaxError, EOFError) as e:
        raise BadPicture("damaged: its header can't be read") from e
    if dtype != np.dtype("<f4") or is_fortran or len(shape) != 3 or shape[0] % 2 or min(shape) < 1:
        raise BadPicture(f"holds {dtype} {shape}, not float32 [2 C, H, W]")
    return (shape[0], shape[1], shape[2]), start


def _parsed(data: bytes, where: str) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise UserError(f"{where} is damaged; convert again with dataset_tool.py --encode=vae") from e
    if not isinstance(content, dict) or content.get("kind") != "latents" or not content.get("digest"):
        raise UserError(f"{where} describes no latents; convert again with dataset_tool.py --encode=vae")
    return content
