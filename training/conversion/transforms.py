"""From a picture of any size to the size of the data set."""

from dataclasses import dataclass
from typing import Literal

from PIL import Image

from training.dataset.pictures import BadPicture

TransformKind = Literal["stretch", "center-crop", "center-crop-wide", "fit-pad"]
FILTERS = {"box": Image.Resampling.BOX, "lanczos": Image.Resampling.LANCZOS}


@dataclass
class Transform:
    """How pictures become width x height pixels; with size None they stay as they are."""

    size: tuple[int, int] | None = None  # (width, height), pixels
    kind: TransformKind = "stretch"
    resize_filter: str = "lanczos"  # both filters average over all pixels that an output pixel covers
    background: str = "white"  # behind transparent parts, and around a picture that fit-pad makes fit

    def apply(self, image: Image.Image) -> Image.Image:
        """RGB or L image -> image of the wanted size. Raises BadPicture if this one doesn't lend itself to it."""
        if self.size is None:
            return image
        return _KINDS[self.kind](self, image, *self.size)

    def resize(self, image: Image.Image, width: int, height: int) -> Image.Image:
        """Stretches to width x height, antialiased."""
        if image.size == (width, height):
            return image
        return image.resize((width, height), FILTERS[self.resize_filter])


def _stretch(transform: Transform, image: Image.Image, width: int, height: int) -> Image.Image:
    return transform.resize(image, width, height)


def _center_crop(transform: Transform, image: Image.Image, width: int, height: int) -> Image.Image:
    """The largest centred square, then stretched to width x height."""
    side = min(image.size)
    return transform.resize(_crop(image, side, side), width, height)


def _center_crop_wide(transform: Transform, image: Image.Image, width: int, height: int) -> Image.Image:
    """The largest centred part of shape width:height, resized, on a black width x width square.

    Pictures smaller than width x height are refused rather than enlarged.
    """
    crop_width = min(image.width, round(image.height * width / height))
    crop_height = min(image.height, round(image.width * height / width))
    if crop_width < width or crop_height < height:
        raise BadPicture(f"too small for center-crop-wide ({image.width}x{image.height} pixels)")
    part = transform.resize(_crop(image, crop_width, crop_height), width, height)
    square = Image.new(image.mode, (width, width))
    square.paste(part, (0, (width - height) // 2))
    return square


def _fit_pad(transform: Transform, image: Image.Image, width: int, height: int) -> Image.Image:
    """The whole picture as large as it fits, centred on the background."""
    scale = min(width / image.width, height / image.height)
    fit_width = min(width, max(1, round(image.width * scale)))
    fit_height = min(height, max(1, round(image.height * scale)))
    canvas = Image.new(image.mode, (width, height), transform.background)
    part = transform.resize(image, fit_width, fit_height)
    canvas.paste(part, ((width - fit_width) // 2, (height - fit_height) // 2))
    return canvas


_KINDS = {
    "stretch": _stretch,
    "center-crop": _center_crop,
    "center-crop-wide": _center_crop_wide,
    "fit-pad": _fit_pad,
}
KIND_NAMES = tuple(_KINDS)


def _crop(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
