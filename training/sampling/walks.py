"""A walk through the space of styles: a smooth curve through the styles of given seeds."""

import re
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy.interpolate import CubicSpline

from dnnlib.errors import UserError
from training.networks.shared.generator import Generator, NoiseMode
from training.sampling.seeds import BATCH, images_of_styles, styles_of_seeds


def walk_styles(
    ws: torch.Tensor,  # [K, num_ws, w_dim], the stations
    frames: int,  # from one station to the next
    loop: bool = True,  # go back to the first one, seamlessly
) -> torch.Tensor:
    """Cubic spline through the stations: [K * frames, num_ws, w_dim] for a loop, whose end joins its beginning in
    value, speed and acceleration, else [(K - 1) * frames + 1, ...]. Frame i * frames is station i exactly.

    UserError for a single station.
    """
    if len(ws) < 2:
        raise UserError("a walk needs two seeds at least")
    points = ws.double().cpu().numpy()
    if loop:
        points = np.concatenate([points, points[:1]])
    spline = CubicSpline(np.arange(len(points)), points, bc_type="periodic" if loop else "natural")
    count = (len(points) - 1) * frames + (not loop)
    return torch.from_numpy(spline(np.arange(count) / frames)).to(ws)


def walk_frames(
    G: Generator,
    seeds: Sequence[int],
    c: torch.Tensor,  # [1, c_dim]
    frames: int,
    loop: bool = True,
    psi: float = 1.0,
    noise_mode: NoiseMode = "const",
) -> tuple[int, Iterator[torch.Tensor]]:
    """Number of frames, and the frames, uint8 [C, H, W] each. Random noise is the same in all frames."""
    ws = walk_styles(styles_of_seeds(G, seeds, c, psi), frames, loop)

    def images() -> Iterator[torch.Tensor]:
        for part in ws.split(BATCH):
            yield from images_of_styles(G, part, noise_mode, [seeds[0]] * len(part))

    return len(ws), images()


def parse_grid(text: str) -> tuple[int, int]:
    """`4x2` -> (4 columns, 2 rows). UserError for anything else."""
    match = re.fullmatch(r"(\d{1,2})x(\d{1,2})", text)
    if match is None or not int(match[1]) * int(match[2]):
        raise UserError(f"--grid={text}: columns and rows, such as 4x2")
    return int(match[1]), int(match[2])


def grid_frames(
    G: Generator,
    seeds: Sequence[int],  # the first walk's stations, then the second's, ...
    grid: tuple[int, int],  # columns, rows
    c: torch.Tensor,
    frames: int,
    loop: bool = True,
    psi: float = 1.0,
    noise_mode: NoiseMode = "const",
) -> tuple[int, Iterator[torch.Tensor]]:
    """As `walk_frames`, with a walk in each cell of a grid, row by row: frames of [C, rows * H, columns * W].

    UserError where the seeds can't be shared out evenly.
    """
    columns, rows = grid
    cells = columns * rows
    if len(seeds) % cells:
        raise UserError(f"--grid={columns}x{rows}: {len(seeds)} stations can't be shared out over {cells} walks evenly")
    each = len(seeds) // cells
    walks = [walk_frames(G, seeds[i * each : (i + 1) * each], c, frames, loop, psi, noise_mode) for i in range(cells)]

    def sheets() -> Iterator[torch.Tensor]:
        for images in zip(*(images for _, images in walks), strict=True):
            lines = [torch.cat(images[i : i + columns], dim=2) for i in range(0, cells, columns)]
            yield torch.cat(lines, dim=1)

    return walks[0][0], sheets()
