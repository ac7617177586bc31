"""The space of an autoencoder's latents (Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion
Models", section 3.1): training sees samples of them and needs no autoencoder; pictures are decoded."""

from dataclasses import dataclass

import torch

from dnnlib.config import Factor, Side
from dnnlib.errors import UserError
from training.networks.autoencoder import Autoencoder, recorded_autoencoder
from training.networks.image_space import ImageSpace, ImageSpaceConfig, register_image_space


@dataclass
class LatentsConfig(ImageSpaceConfig):
    """Latents of an autoencoder. The data set says all of it."""

    autoencoder: str = ""  # folder that diffusers saved, or hf://ORGANISATION/NAME; $STYLELOOM_AUTOENCODER overrides it
    digest: str = ""  # SHA-256 of that autoencoder; official files don't say it
    scale: Factor = 0.18215  # networks see (latent - shift) * scale
    shift: float = 0.0
    factor: Side = 8  # side of a picture over that of its latent
    picture_channels: Side = 3


@register_image_space("latents", LatentsConfig)
class Latents(ImageSpace):
    """Mean and standard deviation of every latent are stored, float32 [N, 2 C, H, W]."""

    cfg: LatentsConfig
    may_mirror = False  # the latent of the mirrored picture is another one
    takes_pictures = False

    def to_network(self, stored: torch.Tensor) -> torch.Tensor:
        """Latents drawn from torch's default generator: another one of the same picture at every use."""
        mean, std = stored.float().chunk(2, dim=1)
        return self._scaled(mean + std * torch.randn_like(std))

    def decode(self, made: torch.Tensor) -> torch.Tensor:
        return self._autoencoder().decode(made.float() / self.cfg.scale + self.cfg.shift)

    def picture_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size[0] * self.cfg.factor, size[1] * self.cfg.factor

    def picture_channels(self, channels: int) -> int:
        return self.cfg.picture_channels

    @torch.no_grad()
    def stored_to_pixels(self, stored: torch.Tensor) -> torch.Tensor:
        """Of the means."""
        return self.to_pixels(self._scaled(stored.float().chunk(2, dim=1)[0]))

    def check(self) -> None:
        self._autoencoder()

    def _scaled(self, latents: torch.Tensor) -> torch.Tensor:
        return (latents - self.cfg.shift) * self.cfg.scale

    def _autoencoder(self) -> Autoencoder:
        cfg = self.cfg
        found = recorded_autoencoder(cfg.autoencoder, cfg.digest)
        if (found.factor, found.picture_channels) != (cfg.factor, cfg.picture_channels):
            raise UserError(
                f"this autoencoder makes pictures of {found.picture_channels} channels, {found.factor} times as large "
                f"as latents; the network wants one of {cfg.picture_channels} channels and {cfg.factor} times"
            )
        return found
