"""Attention maps as pictures: heat laid over the image, the query marked."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from dnnlib.errors import UserError
from training.sampling.attention.maps import Point, token_at, upsampled
from training.sampling.pictures import enlarged, labelled_sheet, to_pil

# Black, violet, red, orange, pale yellow: lightness grows steadily, so the picture can also be read in grey.
_HEAT = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], dtype=np.float32)
_SHADE = 0.45  # share of the grey image under the heat


def heat_colours(values: np.ndarray) -> np.ndarray:
    """[H, W] in [0, 1] -> RGB float [H, W, 3] in [0, 255]."""
    at = np.linspace(0, 1, len(_HEAT))
    return np.stack([np.interp(values, at, _HEAT[:, i]) for i in range(3)], axis=-1)


def overlay(
    image: torch.Tensor,  # uint8 [C, H, W]
    attention: torch.Tensor,  # [h, w]; magnitudes show, stretched from the smallest to the largest
    at: Point | None,  # the query, marked with a frame around its position of the map
    scale: int,
) -> Image.Image:
    """The image in dim grey, brightened and coloured where the attention goes; `scale` times its size."""
    size = (image.shape[1] * scale, image.shape[2] * scale)
    weights = upsampled(attention.abs()[None].float().cpu(), size)[0].numpy()
    weights = (weights - weights.min()) / max(float(np.ptp(weights)), 1e-30)
    grey = np.asarray(enlarged(to_pil(image), scale).convert("L"), dtype=np.float32)[..., None]
    mixed = np.clip(grey * _SHADE * (1 - weights[..., None]) + heat_colours(weights), 0, 255)
    picture = Image.fromarray(mixed.astype(np.uint8))
    if at is not None:
        _mark(picture, at, (attention.shape[0], attention.shape[1]))
    return picture


def _mark(picture: Image.Image, at: Point, size: tuple[int, int]) -> None:
    y, x = token_at(at, size)
    left, top = x * picture.width // size[1], y * picture.height // size[0]
    right, bottom = (x + 1) * picture.width // size[1] - 1, (y + 1) * picture.height // size[0] - 1
    ImageDraw.Draw(picture).rectangle((left, top, max(right, left + 2), max(bottom, top + 2)), outline=(0, 255, 255))


def choose_layers(maps: dict[str, torch.Tensor], wanted: Sequence[str]) -> dict[str, torch.Tensor]:
    """The layers whose name, or size such as 16x16, is wanted; all if none is. UserError for unknown ones."""
    chosen = {n: m for n, m in maps.items() if not wanted or n in wanted or n.partition(".")[0] in wanted}
    unknown = [w for w in wanted if w not in maps and w not in {n.partition(".")[0] for n in maps}]
    if unknown:
        raise UserError(f"--layers: no layer {', '.join(unknown)}; this network has {', '.join(maps)}")
    return chosen


def attention_sheet(
    image: torch.Tensor,  # uint8 [C, H, W]
    maps: dict[str, torch.Tensor],  # layer -> [heads, h, w]
    at: Point | None,
    scale: int,
) -> Image.Image:
    """A row per layer: the image, the mean over the heads, then every head."""
    heads = max(len(m) for m in maps.values())
    plain = enlarged(to_pil(image), scale).convert("RGB")
    rows = []
    for m in maps.values():
        row = [plain, *(overlay(image, part, at, scale) for part in (m.mean(0), *m))]
        rows.append(row)
    return labelled_sheet(rows, list(maps), ["image", "all heads", *(f"head {i}" for i in range(heads))])
