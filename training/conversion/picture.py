"""Pictures that may come from anywhere -> 8-bit RGB or grey. Whatever is wrong with one ends as a `BadPicture`.

Pillow's decoders are called for nine formats only: some of its others start programs (EPS) or read further files.
"""

import functools
import io
import warnings
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageCms, ImageOps

from training.dataset.decoding import HEADER_BYTES, decode, peek_png
from training.dataset.folder_reader import read_file
from training.dataset.zip_reader import BadMember

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
MIN_SIDE = 4  # pixels; less is a tracking pixel or a ruler, not a picture
MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 89_478_485  # what Pillow thinks a decompression bomb
_SPECIAL_CHUNKS = (b"tRNS", b"iCCP", b"eXIf", b"acTL")  # they need more than decoding
_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")


class BadPicture(Exception):
    """This picture can't be used; the message is the reason."""


class Picture(Protocol):
    """A picture that isn't decoded yet, small enough to be sent to a worker process."""

    cost: int  # bytes that sending it moves

    def open(self) -> Image.Image:
        """Decodes it. Raises BadPicture."""


class EncodedPicture:
    """An image file in memory."""

    def __init__(self, data: bytes):
        self.data = data
        self.cost = len(data)

    def open(self) -> Image.Image:
        """Decodes it. Raises BadPicture."""
        return open_picture(self.data)


class FilePicture:
    """An image file on disk, read only where it is decoded."""

    cost = 0

    def __init__(self, path: str):
        self.path = path

    def open(self) -> Image.Image:
        """Reads and decodes it. Raises BadPicture."""
        try:
            return open_picture(read_file(self.path))
        except BadMember as e:
            raise BadPicture(str(e)) from e


class PixelPicture:
    """Pixels as they are, uint8 [H, W] or [H, W, 3]."""

    def __init__(self, pixels: np.ndarray):
        self.pixels = pixels
        self.cost = pixels.nbytes

    def open(self) -> Image.Image:
        """The same pixels as an image."""
        return Image.fromarray(self.pixels)


class NoPicture:
    """Stands for a member of the source that can't be used, so that it is counted and listed."""

    cost = 0

    def __init__(self, reason: str):
        self.reason = reason

    def open(self) -> Image.Image:
        """Raises BadPicture."""
        raise BadPicture(self.reason)


def open_picture(data: bytes) -> Image.Image:
    """An image file -> a loaded image, upright, of sRGB colours where it states others. Raises BadPicture."""
    if not data:
        raise BadPicture("empty file")
    try:
        if _is_plain_png(data):
            pixels = decode(data)
            return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        return _open_with_pillow(data)
    except BadPicture:
        raise
    except Exception as e:  # damaged files make Pillow's decoders raise nearly every kind of exception
        raise BadPicture(_reason(e)) from e


def flatten(image: Image.Image, channels: int, background: str) -> Image.Image:
    """Any mode -> "L" (channels = 1) or "RGB" (3), transparent parts over the colour `background`."""
    mode = "L" if channels == 1 else "RGB"
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, background)
        image = Image.alpha_composite(canvas, image)
    if image.mode[0] in "IF":
        image = _to_8_bit(image)
    return image if image.mode == mode else image.convert(mode)


def _is_plain_png(data: bytes) -> bool:
    """True for an 8-bit grey or RGB PNG of sane size whose chunks ask for nothing but decoding."""
    shape = peek_png(data[:HEADER_BYTES])
    if shape is None:
        return False
    _check_size(shape.width, shape.height)
    at = 8
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"IDAT":
            return True
        if kind in _SPECIAL_CHUNKS:
            return False
        at += 12 + length
    return False


def _open_with_pillow(data: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow warns of (odd tags, large sizes) is checked here or harmless
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_size(*image.size)
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # MPO: a photograph with a second view or preview
            raise BadPicture(f"animated or several pages ({frames} frames)")
        image.load()
        upright = ImageOps.exif_transpose(image)
    return _to_srgb(upright, image.info.get("icc_profile"))


def _check_size(width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE:
        raise BadPicture(f"too small ({width}x{height} pixels)")
    if width * height > MAX_PIXELS:
        raise BadPicture(f"too large ({width}x{height} pixels)")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Colours of an embedded ICC profile -> sRGB. A profile that is damaged or doesn't fit is left aside."""
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK", "L"):
        return image
    try:
        transform = _icc_transform(profile, image.mode)
        if transform is None:
            return image
        converted = ImageCms.applyTransform(image.convert("RGB") if image.mode == "RGBA" else image, transform)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    assert converted is not None  # None only for in-place transforms
    if image.mode == "RGBA":
        converted.putalpha(image.getchannel("A"))
    return converted


@functools.lru_cache(maxsize=16)
def _icc_transform(profile: bytes, mode: str) -> Any:
    """The transform to sRGB, None if the profile is sRGB's own."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if "sRGB" in ImageCms.getProfileDescription(source):
        return None
    target = ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(source, target, "RGB" if mode == "RGBA" else mode, "L" if mode == "L" else "RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """16-bit grey (Pillow's modes I;16 and I) -> L by value / 257, rounded: 65535 is white."""
    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 0xFFFF:
        raise BadPicture("its values have no known range (floating-point or 32-bit pixels)")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image file that can be read"
    if isinstance(error, Image.DecompressionBombError):
        return "too large (decompression bomb)"
    return " ".join(f"damaged: {error or type(error).__name__}".split())[:200]
