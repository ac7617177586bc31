"""The one reader of pictures that may come from anywhere: for the converter, data sets, metrics and projection.

Whatever is wrong with a picture ends as a `BadPicture`. Pillow's decoders are called for nine formats only: some of
its others start programs (EPS) or read further files.
"""

import contextlib
import functools
import io
import logging
import warnings
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps

from training.dataset.decoding import HEADER_BYTES, ImageShape, decode_plain_png, is_plain_png, peek_png

VERSION = 2  # raise it with any change of the pixels that come out: cached features of data sets then count no more
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
SUFFIXES = (
    *("png", "apng", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "dib", "gif", "tif", "tiff"),
    *("ppm", "pgm", "pbm", "pnm", "jp2", "j2k", "jpx", "jpf", "avif"),
)  # of files in these formats
MIN_SIDE = 4  # pixels; less is a tracking pixel or a ruler, not a picture
MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 89_478_485  # what Pillow thinks a decompression bomb
MAX_SCANS = 100  # of a progressive JPEG; cameras and encoders write about ten, and each costs a pass over the picture
_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
_GREY_MODES = ("1", "L")
_GREY_SCALES = {2: 85, 4: 17}  # bits a pixel -> what Pillow multiplies grey PNGs of this depth by
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
_ORIENTATION, _ON_ITS_SIDE = 0x0112, 5  # EXIF tag; values from 5 on swap width and height
_UNSIGNED, _WHITE_IS_ZERO = 1, 0


logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it tells the log ends up in a reason here


class BadPicture(Exception):
    """This picture can't be used; the message is the reason."""


def looks_like_picture(name: str) -> bool:
    """True if a file's name ends as those of pictures do."""
    stem, _, suffix = name.rpartition(".")
    return bool(stem) and suffix.lower() in SUFFIXES


def open_picture(data: bytes, first_frame: bool = False) -> Image.Image:
    """An image file -> a loaded image of 8-bit values, upright, of sRGB colours where it states others.

    Raises BadPicture, also for animations and files of several pages, unless their `first_frame` will do.
    """
    if not data:
        raise BadPicture("empty file")
    try:
        if is_plain_png(data):
            shape = peek_png(data[:HEADER_BYTES])
            assert shape is not None  # or it wouldn't be plain
            _check_size(shape.width, shape.height)
            pixels = decode_plain_png(data)
            return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        return _open_with_pillow(data, first_frame)
    except BadPicture:
        raise
    except Exception as e:  # damaged files make Pillow's decoders raise nearly every kind of exception
        raise BadPicture(_reason(e)) from e


def flatten(image: Image.Image, channels: int, background: str) -> Image.Image:
    """Any mode -> "L" (channels = 1) or "RGB" (3), transparent parts over the colour `background`.

    Raises BadPicture for modes without a known way to colours.
    """
    try:
        if is_transparent(image):
            image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
        if image.mode not in _GREY_MODES:
            image = image.convert("RGB")  # also on the way to grey: Pillow knows no other way from Lab
        return image.convert("L" if channels == 1 else "RGB")
    except ValueError as e:
        raise BadPicture(f"its pixels are of the kind {image.mode}, which have no known colours") from e


def is_transparent(image: Image.Image) -> bool:
    """True if the image has an alpha channel or a transparent colour."""
    return image.mode in _ALPHA_MODES or "transparency" in image.info


def decode(data: bytes) -> np.ndarray:
    """An image file of a data set -> uint8 [H, W, C], C = 1 if it is grey, else 3.

    Raises BadPicture, also if it is transparent somewhere: what lies behind is a choice of whoever converts it.
    """
    image = open_picture(data)
    channels = 1 if image.mode in (*_GREY_MODES, "LA", "La") else 3
    if is_transparent(image):
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            raise BadPicture("it has transparent parts")
        image.info.pop("transparency", None)
        image = image.convert("RGB")
    return np.asarray(flatten(image, channels, "white")).reshape(image.height, image.width, channels)


def shape_of(data: bytes) -> ImageShape:
    """The shape of what `decode` will give. Raises BadPicture."""
    shape = _jpeg_shape(data)
    if shape is None:
        height, width, channels = decode(data).shape
        shape = ImageShape(channels, height, width)
    return shape


def _jpeg_shape(data: bytes) -> ImageShape | None:
    """What the header tells of an ordinary JPEG, which takes longer to decode; None for all else."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    with contextlib.suppress(Exception), Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        if image.format == "JPEG" and image.mode in ("L", "RGB"):
            height, width = image.size if image.getexif().get(_ORIENTATION, 1) >= _ON_ITS_SIDE else image.size[::-1]
            return ImageShape(1 if image.mode == "L" else 3, height, width)
    return None  # a damaged one among them: decoding will say what is wrong


def _open_with_pillow(data: bytes, first_frame: bool) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow warns of (odd tags, large sizes) is checked here or harmless
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_size(*image.size)
        if image.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > MAX_SCANS:
            raise BadPicture(f"a JPEG of more than {MAX_SCANS} scans")
        if not first_frame and image.format != "MPO" and _has_more_frames(image):  # MPO: a photograph and its preview
            raise BadPicture("animated or several pages")
        image.load()
        profile = image.info.get("icc_profile")
        upright = ImageOps.exif_transpose(_to_8_bit(image, data))
    return _to_srgb(upright, profile)


def _has_more_frames(image: Image.Image) -> bool:
    """Looks for a second frame only: counting them takes a minute where a file has 100,000."""
    if image.format != "TIFF":
        return getattr(image, "is_animated", False)
    try:
        image.seek(1)
    except EOFError:
        return False
    finally:
        image.seek(0)
    return True


def _check_size(width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE:
        raise BadPicture(f"too small ({width}x{height} pixels)")
    if width * height > MAX_PIXELS:
        raise BadPicture(f"too large ({width}x{height} pixels)")


def _to_8_bit(image: Image.Image, data: bytes) -> Image.Image:
    """Pillow's modes of deep grey -> L, a transparent value -> an alpha channel. Others stay, but for the transparent
    colours of PNGs that Pillow gives on another scale than the pixels."""
    clear = image.info.get("transparency")
    if image.mode[0] in "IF":
        return _scale_down(image, clear)
    if image.format == "PNG" and clear is not None and image.mode in ("L", "RGB"):
        depth = data[24]
        if depth in _GREY_SCALES and image.mode == "L":
            image.info["transparency"] = clear * _GREY_SCALES[depth]
        elif depth == 16 and image.mode == "RGB":
            return _with_alpha(image, (_rgb_16(image, data) != np.array(clear)).any(-1))
    return image


def _scale_down(image: Image.Image, clear: int | None) -> Image.Image:
    largest, inverted = _range_of(image)
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > largest:
        raise BadPicture("its values have no known range (32-bit pixels)")
    eight = ((values * 510 + largest) // (2 * largest)).astype(np.uint8)  # rounded; `largest` becomes 255
    out = Image.fromarray(255 - eight if inverted else eight)
    out.info = {k: v for k, v in image.info.items() if k != "transparency"}
    return out if clear is None else _with_alpha(out, values != clear)


def _range_of(image: Image.Image) -> tuple[int, bool]:
    """The value that is white in a deep grey image, and whether it is black instead. BadPicture if none is known."""
    if image.mode[0] == "F":
        raise BadPicture("its values have no known range (floating-point pixels)")
    if image.format != "TIFF":
        return 0xFFFF, False  # Pillow brings PNG, PPM and JPEG 2000 to 16 bits
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    bits = int(tags.get(_BITS_PER_SAMPLE, (16,))[0])
    if bits > 16 or tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0] != _UNSIGNED:
        raise BadPicture(f"its values have no known range (signed or {bits}-bit pixels)")
    return 2**bits - 1, tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def _rgb_16(image: Image.Image, data: bytes) -> np.ndarray:
    """All 16 bits of a PNG of which Pillow has kept the upper 8, int64 [H, W, 3]."""
    lower = Image.open(io.BytesIO(data), formats=("PNG",))
    lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]  # takes the other byte of each value
    return np.asarray(image).astype(np.int64) * 256 + np.asarray(lower)


def _with_alpha(image: Image.Image, opaque: np.ndarray) -> Image.Image:
    image.info.pop("transparency", None)
    out = image.convert(image.mode + "A")
    out.putalpha(Image.fromarray(opaque.astype(np.uint8) * 255))
    return out


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


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image file that can be read"
    if isinstance(error, Image.DecompressionBombError):
        return "too large (decompression bomb)"
    return " ".join(f"damaged: {error or type(error).__name__}".split())[:200]
