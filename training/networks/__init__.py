"""All networks, by name. Importing this package registers them."""

from training.networks import (
    discriminator,
    styleformer,
    styleformer_c,
    stylegan2,
    stylenat,
    wavelet_discriminator,
)
from training.networks.files import load, save
from training.networks.generator import Generator
from training.networks.registry import (
    DiscriminatorConfig,
    GeneratorConfig,
    NetworkConfig,
    build,
    config_from_dict,
    known_kinds,
    register,
)

__all__ = [
    "DiscriminatorConfig",
    "Generator",
    "GeneratorConfig",
    "NetworkConfig",
    "build",
    "config_from_dict",
    "discriminator",
    "known_kinds",
    "load",
    "register",
    "save",
    "styleformer",
    "styleformer_c",
    "stylegan2",
    "stylenat",
    "wavelet_discriminator",
]
