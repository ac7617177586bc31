"""A walk through the space of styles: a smooth curve through the styles of given seeds."""

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
