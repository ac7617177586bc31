"""Feature alignment (GAT, arXiv 2509.24935; after Yu et al. 2024, "Representation Alignment for Generation"): what a
discriminator makes of a real picture should resemble what a pretrained encoder makes of it."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from dnnlib.config import Weight
from dnnlib.errors import UserError
from metrics.detectors import detector_info, load_detector
from metrics.sources import as_rgb
from torch_utils import distributed
from training.augment.draw import Draw
from training.networks.image_space import build_space
from training.networks.registry import DiscriminatorConfig, GeneratorConfig
from training.networks.shared.generator import Generator

_OUTPUTS = ("features", "spatial")


@dataclass
class AlignmentConfig:
    """Which encoder D's features are aligned with; D.feature_dim gives D the head for it."""

    detector: str | None = None  # a detector with spatial features: dinov2-vitb14, lite0, ...; None: no alignment
    file: str | None = None  # its weights, where they are not found by themselves
    weight: Weight = 1.0

    def check(self, G: GeneratorConfig, D: DiscriminatorConfig) -> None:
        """UserError where D has no head of the encoder's width, or there is no such encoder here."""
        if self.detector is None:
            return
        if not set(_OUTPUTS) <= set(detector_info(self.detector).outputs):
            raise UserError(f"loss.alignment.detector={self.detector}: this detector has no spatial features")
        width = encoder_width(self)
        if getattr(D, "feature_dim", 0) != width:
            raise UserError(
                f"loss.alignment: the features of {self.detector} are {width} wide, so D, a gat_discriminator, needs "
                f"--set D.feature_dim={width}"
            )
        build_space(G.space).check()  # the encoder sees pictures


def encoder_width(cfg: AlignmentConfig) -> int:
    """Length of the encoder's features. UserError where it can't be had."""
    encoder = _encoder(cfg, torch.device("cpu"))
    with torch.no_grad():
        return encoder(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), _OUTPUTS)["features"].shape[1]


def _encoder(cfg: AlignmentConfig, device: torch.device) -> Any:
    assert cfg.detector is not None
    return load_detector(cfg.detector, device, file=cfg.file)


class Alignment:
    """Compares features of D with those of the encoder."""

    def __init__(self, cfg: AlignmentConfig, G: Generator):
        self.cfg, self._space = cfg, G.space
        device = next(G.parameters()).device
        self._encoder = distributed.agreed(lambda: _encoder(cfg, device))

    def loss(
        self,
        real: torch.Tensor,  # [N, C, H, W] as networks see them, before augmentation
        draw: Draw,  # the augmentation that D sees them through
        of_class: torch.Tensor,  # [N, F], of D's class token
        of_grid: torch.Tensor,  # [N, rows * columns, F], of its other tokens
        size: tuple[int, int],  # (rows, columns)
    ) -> torch.Tensor:
        """[N]: 1 - cos for the class token, and the mean of 1 - cos over the tokens of the grid. The encoder sees the
        picture moved as D does, in its true colours and whole; its grid is resized to D's."""
        with torch.no_grad():
            seen = self._encoder(as_rgb(self._space.to_pixels(draw.moved(real))), _OUTPUTS)
            grid = F.interpolate(seen["spatial"].float(), size, mode="bicubic").flatten(2).transpose(1, 2)
        far = 1 - F.cosine_similarity(of_class, seen["features"].float(), dim=1)
        return far + (1 - F.cosine_similarity(of_grid, grid, dim=2)).mean(1)
