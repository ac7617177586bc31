"""What all generators have in common: mapping, truncation, style mixing. A new generator supplies `synthesis`."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from training.networks.image_space import build_space
from training.networks.registry import GeneratorConfig
from training.networks.shared.mapping import Mapping, MappingNetwork

NoiseMode = Literal["random", "const", "none"]
NOISE_MODES = ("random", "const", "none")


class Generator(nn.Module):
    """Base class. A subclass calls `super().__init__(cfg, num_ws)` and provides `synthesis(ws, noise_mode)`,
    a method or a module: ws [N, >= num_ws, w_dim] -> images [N, C, H, W], float32, about [-1, 1]. One with several
    output levels also overrides `levels`; one with another mapping than StyleGAN's gives it to `super().__init__`."""

    synthesis: Callable[..., torch.Tensor]
    num_levels = 1  # how many images `levels` gives
    label_vectors: torch.Tensor | None = None  # [M, c_dim], where labels are no classes: some it was trained on

    def __init__(
        self,
        cfg: GeneratorConfig,
        num_ws: int,
        mapping: Mapping | None = None,  # None: StyleGAN's mapping network, as the config says
    ):
        super().__init__()
        self.cfg = cfg
        self.z_dim, self.c_dim, self.w_dim = cfg.z_dim, cfg.c_dim, cfg.w_dim
        self.img_channels = cfg.img_channels
        self.img_size = tuple(cfg.img_resolution)  # (height, width)
        self.img_resolution = max(cfg.img_resolution)  # the side of a square image, the name the field uses
        self.num_ws = num_ws
        self.path_length_styles = num_ws  # styles that a path length is averaged over, and style mixing switches among
        self.space = build_space(cfg.space)
        self.picture_size = self.space.picture_size((cfg.img_resolution[0], cfg.img_resolution[1]))
        self.mapping: Mapping = _mapping_network(cfg, num_ws) if mapping is None else mapping

    def forward(
        self,
        z: torch.Tensor,  # [N, z_dim]
        c: torch.Tensor | None = None,  # [N, c_dim]
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise_mode: NoiseMode = "random",
    ) -> torch.Tensor:
        """Latents (and labels) -> images [N, C, H, W]."""
        ws = self.mapping(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        return self.synthesis(ws, noise_mode=noise_mode)

    def levels(self, ws: torch.Tensor, noise_mode: NoiseMode = "random") -> list[torch.Tensor]:
        """All outputs for styles `ws`, coarsest first; the last one is the picture that `synthesis` gives."""
        return [self.synthesis(ws, noise_mode=noise_mode)]

    def levels_of(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        """Real pictures [N, C, H, W] in place of `levels`: the picture at each, unless a subclass says otherwise."""
        return [pictures] * self.num_levels

    def resolution_modules(self) -> list[list[nn.Module]]:
        """Per resolution, from the lowest up: the modules that take its features as first argument and compute in their
        precision. `synthesis` may offer them; without them a generator trains in float32 only."""
        offered = getattr(self.synthesis, "resolution_modules", None)
        return offered() if offered is not None else []

    def mixed_styles(self, z: torch.Tensor, c: torch.Tensor | None, probability: float) -> torch.Tensor:
        """ws [N, num_ws, w_dim] for training: with `probability` an image's styles switch, at a random layer, to those
        of a second latent (mixing regularisation, Karras et al. 2019, section 3.1). The layer is one of
        `path_length_styles`; beyond the last style a switch changes nothing."""
        ws = self.mapping(z, c)
        if probability <= 0:
            return ws
        n, device = len(z), z.device
        other = self.mapping(torch.randn_like(z), c)
        layers = self.path_length_styles
        start = torch.randint(1, layers, [n, 1], device=device) if layers > 1 else self.num_ws
        start = torch.where(torch.rand([n, 1], device=device) < probability, start, self.num_ws)
        return torch.where((torch.arange(self.num_ws, device=device) < start)[:, :, None], ws, other)


def _mapping_network(cfg: GeneratorConfig, num_ws: int) -> MappingNetwork:
    return MappingNetwork(
        cfg.z_dim,
        cfg.c_dim,
        cfg.w_dim,
        num_ws,
        num_layers=cfg.mapping_layers,
        lr_multiplier=cfg.mapping_lr_multiplier,
        activation=cfg.mapping_activation,
    )
