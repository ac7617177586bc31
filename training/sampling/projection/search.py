"""Projection: the style whose image comes closest to a given one (Karras et al. 2020, "Analyzing and Improving",
appendix D, with the styles of all layers free to differ unless asked otherwise)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps

from dnnlib.errors import UserError
from training.dataset.folder_reader import read_file
from training.dataset.pictures import BadPicture, flatten, open_picture
from training.dataset.zip_reader import BadMember
from training.networks.shared.generator import Generator
from training.sampling.seeds import device_of

Space = Literal["w+", "w"]
Distance = Callable[[torch.Tensor], torch.Tensor]  # images [N, C, H, W] in [-1, 1] -> [N]


@dataclass
class ProjectionConfig:
    """How the style is searched for."""

    space: Space = "w+"  # "w+": a style for every layer, "w": one for all
    steps: int = 500
    lr: float = 0.1  # of Adam, in units of the spread of w, at its peak
    rampup: float = 0.05  # share of the steps until the peak
    rampdown: float = 0.25  # share of the steps of the cosine down to 0
    start_samples: int = 64  # w_avg is the start unless one of so many random styles is closer; 0: always w_avg
    noise: float = 0.05  # noise added to w at the start, in units of the spread of w
    noise_rampdown: float = 0.75  # share of the steps after which none is added
    seed: int = 0


@dataclass
class Projection:
    """What a search found."""

    ws: torch.Tensor  # [1, num_ws, w_dim], the closest seen
    distance: float
    average_ws: torch.Tensor  # [1, num_ws, w_dim], the average style (of the class)
    average_distance: float
    distances: list[float]  # of every step


def project(
    G: Generator,
    distance: Distance,
    cfg: ProjectionConfig,
    c: torch.Tensor,  # [1, c_dim]
    progress: Callable[[float], None] = lambda best: None,  # told the smallest distance so far after every step
) -> Projection:
    """Searches for the style whose image (noise: const) has the smallest distance."""
    device = device_of(G)
    average, spread, candidates = _statistics(G, c, cfg)
    average_ws = average.expand(1, G.num_ws, -1)
    average_distance = _distance_of(G, distance, average_ws)
    start = _closest(G, distance, candidates, average, average_distance)
    rows = G.num_ws if cfg.space == "w+" else 1
    w = start.expand(1, rows, -1).clone().requires_grad_(True)
    optimizer = torch.optim.Adam([w], betas=(0.9, 0.999))
    generator = torch.Generator().manual_seed(cfg.seed)
    best, best_ws, seen = average_distance, average_ws, []
    for step in range(cfg.steps):
        optimizer.param_groups[0]["lr"] = cfg.lr * spread * _schedule((step + 1) / cfg.steps, cfg)
        noise = torch.randn(w.shape, generator=generator).to(device)
        amount = cfg.noise * spread * max(0.0, 1 - step / cfg.steps / cfg.noise_rampdown) ** 2
        ws = (w + noise * amount).expand(-1, G.num_ws, -1)
        loss = distance(G.synthesis(ws, noise_mode="const")).sum()
        seen.append(loss.item())
        if seen[-1] < best:
            best, best_ws = seen[-1], ws.detach().clone()
        progress(best)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Projection(best_ws.contiguous().cpu(), best, average_ws.contiguous().cpu(), average_distance, seen)


def _statistics(G: Generator, c: torch.Tensor, cfg: ProjectionConfig) -> tuple[torch.Tensor, float, torch.Tensor]:
    """Average style [1, 1, w_dim], spread (root mean square distance per dimension) and random styles [n, 1, w_dim]."""
    z = torch.from_numpy(np.random.RandomState(cfg.seed).randn(1000, G.z_dim)).float().to(device_of(G))
    with torch.no_grad():
        w = G.mapping(z, c.to(z.device).expand(len(z), -1))[:, :1]
    known = None if G.c_dim else G.mapping.w_avg  # that of all classes is no style of the class
    average = w.mean(0, keepdim=True) if known is None else known.expand(1, 1, -1)
    return average, float((w - average).square().mean().sqrt()), w[: cfg.start_samples]


@torch.no_grad()
def _distance_of(G: Generator, distance: Distance, ws: torch.Tensor) -> float:
    return float(distance(G.synthesis(ws, noise_mode="const")))


def _closest(
    G: Generator, distance: Distance, candidates: torch.Tensor, average: torch.Tensor, average_distance: float
) -> torch.Tensor:
    """[1, 1, w_dim]."""
    best, closest = average_distance, average
    for w in candidates:
        d = _distance_of(G, distance, w[None].expand(1, G.num_ws, -1))
        if d < best:
            best, closest = d, w[None]
    return closest


def _schedule(t: float, cfg: ProjectionConfig) -> float:
    """Share of the peak learning rate after the share t of the steps: linear up, cosine down."""
    down = min(1.0, (1 - t) / cfg.rampdown)
    return min(1.0, t / cfg.rampup) * (0.5 - 0.5 * math.cos(math.pi * down))


def load_target(path: str, G: Generator) -> torch.Tensor:
    """The picture in a file as a target. Of an animation the first frame is taken. UserError if it is no picture."""
    try:
        return as_target(open_picture(read_file(path), first_frame=True), G)
    except (BadMember, BadPicture) as e:
        raise UserError(f"--target: cannot read the picture {path}: {e}") from e


def as_target(picture: Image.Image, G: Generator) -> torch.Tensor:
    """A picture of any size, cropped to the network's shape, resized and as [1, C, H, W] in [-1, 1]. Transparent parts
    become white. BadPicture if its pixels can't be read."""
    picture = flatten(picture, 3 if G.img_channels == 3 else 1, "white")
    height, width = G.img_size
    picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    pixels = np.array(picture, dtype=np.float32).reshape(height, width, -1)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
