"""Picture grids: many images to one PNG, labelled sheets."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from dnnlib.errors import UserError
from dnnlib.files import WriteError, write_file

LABEL_HEIGHT = 14  # pixels


def to_pil(image: torch.Tensor) -> Image.Image:
    """uint8 [C, H, W] with 1 or 3 channels -> PIL image."""
    pixels = image.permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))


def grid_size(height: int, width: int, count: int) -> tuple[int, int]:
    """(rows, columns) of a grid that fits 1920 x 1080 where it can, of at most `count` images."""
    columns = max(min(1920 // width, 16), 4)
    rows = max(min(1080 // height, 10), 3)
    columns = min(columns, count)
    return max(min(rows, count // columns), 1), columns


def save_grid(images: torch.Tensor, path: Path, rows: int, columns: int) -> None:
    """uint8 [rows * columns, C, H, W], row by row -> one PNG."""
    _, c, h, w = images.shape
    sheet = images.reshape(rows, columns, c, h, w).permute(2, 0, 3, 1, 4).reshape(c, rows * h, columns * w)
    write_picture(to_pil(sheet), path)


def write_picture(picture: Image.Image, path: str | Path) -> None:
    """Saves in the form that the suffix names, atomically, making the folder; UserError if that can't be done."""
    form = Image.registered_extensions().get(Path(path).suffix.lower())
    if form is None:
        raise UserError(f"cannot write the picture {path}: no form is known by that name; call it picture.png")
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise WriteError(path, e) from e
    buffer = io.BytesIO()  # a library that seeks and writes in bits is not told of a full disk in the middle
    try:
        picture.save(buffer, form)
    except (OSError, ValueError, KeyError) as e:
        raise UserError(f"cannot write the picture {path}: {e}; give a name such as picture.png") from e
    write_file(path, buffer.getvalue())


def enlarged(picture: Image.Image, scale: int) -> Image.Image:
    """Every pixel becomes scale x scale pixels."""
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def labelled_sheet(
    cells: Sequence[Sequence[Image.Image]],  # rows of pictures of one size
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    gap: int = 2,  # white pixels between cells
) -> Image.Image:
    """A table of pictures on white, its rows labelled at the left and its columns on top."""
    width, height = cells[0][0].size
    font = ImageFont.load_default(size=LABEL_HEIGHT)
    left = int(max((font.getlength(text) for text in row_labels), default=-2 * gap)) + 2 * gap
    top = LABEL_HEIGHT + 3 * gap if column_labels else 0
    columns = max(map(len, cells))
    sheet = Image.new("RGB", (left + columns * (width + gap) - gap, top + len(cells) * (height + gap) - gap), "white")
    draw = ImageDraw.Draw(sheet)
    for j, text in enumerate(column_labels):
        draw.text((left + j * (width + gap) + width // 2, gap), text, "black", font, anchor="mt")
    for i, row in enumerate(cells):
        if row_labels:
            draw.text(
                (left - 2 * gap, top + i * (height + gap) + height // 2), row_labels[i], "black", font, anchor="rm"
            )
        for j, picture in enumerate(row):
            sheet.paste(picture, (left + j * (width + gap), top + i * (height + gap)))
    return sheet
