"""All networks, by name. Importing this package registers them."""

from training.networks import discriminators, generators, latents
from training.networks.files import load, save
from training.networks.registry import (
    DiscriminatorConfig,
    GeneratorConfig,
    NetworkConfig,
    build,
    config_from_dict,
    known_kinds,
    register,
)
from training.networks.shared.generator import Generator

__all__ = [
    "DiscriminatorConfig",
    "Generator",
    "GeneratorConfig",
    "NetworkConfig",
    "build",
    "config_from_dict",
    "discriminators",
    "generators",
    "known_kinds",
    "latents",
    "load",
    "register",
    "save",
]
