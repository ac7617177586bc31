"""Sheets of pictures: seeds, truncation sweeps, classes, style mixing."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from PIL import Image

from dnnlib.errors import UserError
from dnnlib.progress import tqdm
from training.networks.shared.generator import Generator, NoiseMode
from training.sampling.pictures import enlarged, labelled_sheet, to_pil
from training.sampling.seeds import class_label, images_of_styles, styles_of_seeds

T = TypeVar("T")
SMALL = 96  # pixels: smaller images are enlarged on sheets


def sheet_scale(size: tuple[int, ...], goal: int = SMALL) -> int:
    """By how much images of `size` (height, width) are enlarged so that their shorter side reaches about `goal`."""
    return max(goal // min(size), 1)


def pictures(images: torch.Tensor, scale: int) -> list[Image.Image]:
    """uint8 [N, C, H, W] -> RGB pictures."""
    return [enlarged(to_pil(image), scale).convert("RGB") for image in images]


def _row(
    G: Generator, seeds: Sequence[int], c: torch.Tensor, psi: float, noise_mode: NoiseMode, scale: int
) -> list[Image.Image]:
    return pictures(images_of_styles(G, styles_of_seeds(G, seeds, c, psi), noise_mode, seeds), scale)


def _progress(rows: Sequence[T]) -> Iterable[T]:
    """A bar on a terminal, nothing elsewhere."""
    return tqdm(rows, unit="row", disable=None, leave=False)


def seed_sheet(
    G: Generator,
    seeds: Sequence[int],
    c: torch.Tensor,  # [N, c_dim]
    psi: float,
    noise_mode: NoiseMode,
    columns: int,
    scale: int,
) -> Image.Image:
    """One picture per seed, `columns` a row, without labels."""
    parts = [seeds[i : i + columns] for i in range(0, len(seeds), columns)]
    rows = zip(_progress(parts), c.split(columns))
    return labelled_sheet([_row(G, part, labels, psi, noise_mode, scale) for part, labels in rows])


def truncation_sheet(
    G: Generator, seeds: Sequence[int], c: torch.Tensor, psis: Sequence[float], noise_mode: NoiseMode, scale: int
) -> Image.Image:
    """A row per truncation psi, a column per seed."""
    rows = [_row(G, seeds, c, psi, noise_mode, scale) for psi in _progress(psis)]
    return labelled_sheet(rows, [f"psi {p:g}" for p in psis], [str(seed) for seed in seeds])


def class_sheet(G: Generator, seeds: Sequence[int], psi: float, noise_mode: NoiseMode, scale: int) -> Image.Image:
    """A row per class of a conditional network, a column per seed."""
    labels = [class_label(G, i) for i in range(G.c_dim)]
    rows = [_row(G, seeds, c, psi, noise_mode, scale) for c in _progress(labels)]
    return labelled_sheet(rows, [f"class {i}" for i in range(G.c_dim)], [str(seed) for seed in seeds])


def parse_styles(text: str, num_ws: int) -> list[int]:
    """`0-3,7` -> [0, 1, 2, 3, 7]; UserError for what isn't there, and where there is a single style."""
    if num_ws < 2:
        raise UserError("this network has a single style for the whole image: there is nothing to mix")
    chosen: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.strip().isdigit() or (dash and not last.strip().isdigit()):
            raise UserError(f"--styles: {part!r} is neither a number nor a range such as 0-3")
        chosen.extend(range(int(first), int(last if dash else first) + 1))
    if not chosen or max(chosen) >= num_ws:
        raise UserError(f"--styles={text}: this network has the styles 0 to {num_ws - 1}")
    return sorted(set(chosen))


def mixed(ws: torch.Tensor, other: torch.Tensor, styles: Sequence[int]) -> torch.Tensor:
    """ws [N, num_ws, w_dim] with the styles named taken from `other` (Karras et al. 2019, section 3.1)."""
    result = ws.clone()
    result[:, list(styles)] = other[:, list(styles)]
    return result


def mixing_sheet(
    G: Generator,
    row_seeds: Sequence[int],
    column_seeds: Sequence[int],
    styles: Sequence[int],
    c: torch.Tensor,
    psi: float,
    noise_mode: NoiseMode,
    scale: int,
) -> Image.Image:
    """The style mixing matrix: the row's picture, with `styles` taken from the column's."""
    rows, columns = (styles_of_seeds(G, seeds, c, psi) for seeds in (row_seeds, column_seeds))
    blank = Image.new("RGB", (G.picture_size[1] * scale, G.picture_size[0] * scale), "white")
    cells = [[blank, *pictures(images_of_styles(G, columns, noise_mode, column_seeds), scale)]]
    for w, seed in zip(rows, _progress(row_seeds)):
        ws = torch.cat([w[None], mixed(w[None].expand(len(columns), -1, -1), columns, styles)])
        cells.append(pictures(images_of_styles(G, ws, noise_mode, [seed] * len(ws)), scale))
    return labelled_sheet(cells, ["", *map(str, row_seeds)], ["", *map(str, column_seeds)])
