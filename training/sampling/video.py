"""Frames to mp4 (H.264, by imageio-ffmpeg) or GIF (by Pillow)."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dnnlib.errors import UserError
from dnnlib.files import atomic_path

CRF = 14  # H.264 quality: 0 is lossless, 23 usual; small pictures need a low one
GIF_COLOURS = 256


def check_video_path(path: str | Path) -> None:
    """UserError unless `write_video` could write such a file here, so that nothing is computed in vain."""
    suffix = Path(path).suffix.lower()
    if suffix not in (".mp4", ".gif"):
        raise UserError(f"{path}: a walk is written as .mp4 or .gif")
    if suffix == ".mp4":
        _ffmpeg()


def write_video(path: str | Path, frames: Iterable[Image.Image], fps: int, loop: bool) -> None:
    """RGB pictures of one size -> the file, which appears when it is complete."""
    check_video_path(path)
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial:
            if path.suffix.lower() == ".mp4":
                _write_mp4(partial, frames, fps)
            else:
                _write_gif(partial, frames, fps, loop)
    except OSError as e:
        raise UserError(f"cannot write the video {path}: {e}") from e


def _write_mp4(path: Path, frames: Iterable[Image.Image], fps: int) -> None:
    iterator = map(_even, frames)
    first = next(iterator)
    writer = _ffmpeg().write_frames(
        str(path),
        first.size,
        fps=fps,
        codec="libx264",
        quality=None,
        macro_block_size=2,
        output_params=["-crf", str(CRF), "-movflags", "+faststart"],
    )
    writer.send(None)
    try:
        for picture in _chain(first, iterator):
            writer.send(np.ascontiguousarray(picture))
    finally:
        writer.close()


def _chain(first: Image.Image, rest: Iterator[Image.Image]) -> Iterator[Image.Image]:
    yield first
    yield from rest


def _even(picture: Image.Image) -> Image.Image:
    """H.264 wants even sides: an odd one loses its last row or column."""
    return picture.crop((0, 0, picture.width // 2 * 2, picture.height // 2 * 2))


def _write_gif(path: Path, frames: Iterable[Image.Image], fps: int, loop: bool) -> None:
    first, *rest = (p.quantize(GIF_COLOURS, dither=Image.Dither.NONE) for p in frames)
    # GIF counts time in hundredths of a second, and viewers slow down anything below two of them.
    duration = max(round(100 / fps), 2) * 10
    endless: dict[str, Any] = {"loop": 0} if loop else {}
    first.save(path, save_all=True, append_images=rest, duration=duration, optimize=False, **endless)


def _ffmpeg() -> Any:
    try:
        import imageio_ffmpeg
    except ImportError as e:
        raise UserError("mp4 needs imageio-ffmpeg: pip install 'styleloom[video]', or write a .gif") from e
    return imageio_ffmpeg
