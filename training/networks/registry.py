"""Networks by name: a config dataclass and a module class, joined by a decorator; a config rebuilds its network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch

from dnnlib.config import Layers, Range, Side, Tagged, from_dict, register_kind
from dnnlib.errors import ConfigError
from training.networks.image_space import ImageSpaceConfig, PixelsConfig


@dataclass
class NetworkConfig(Tagged):
    """What every network needs to know of the images. The trainer fills these in from the data set."""

    img_resolution: tuple[Side, Side] = (32, 32)  # (height, width) in pixels
    img_channels: Side = 3  # 3 for RGB, 1 for grey
    c_dim: Annotated[int, Range(0, 2**20)] = 0  # length of the label vector, 0: unconditional


@dataclass
class GeneratorConfig(NetworkConfig):
    """What every generator has."""

    z_dim: Side = 512  # latent dimension
    w_dim: Side = 512  # style dimension
    mapping_layers: Layers = 8  # fully connected layers from z to w
    seed_rule: Literal["numpy", "torch"] = "numpy"  # whose random numbers a seed's z comes from
    space: ImageSpaceConfig = field(default_factory=PixelsConfig)  # what the networks see and G makes


@dataclass
class DiscriminatorConfig(NetworkConfig):
    """Base of the discriminators' configs."""


_classes: dict[type[NetworkConfig], type[torch.nn.Module]] = {}


def register(
    kind: str,
    config_class: type[NetworkConfig],
    aliases: Sequence[str] = (),  # former names of the kind, by which files may still call it
) -> Callable[[type[torch.nn.Module]], type[torch.nn.Module]]:
    """Class decorator: `kind` names `config_class` in files and options, and builds the decorated module from it."""

    def decorate(module_class: type[torch.nn.Module]) -> type[torch.nn.Module]:
        for name in (*aliases, kind):  # the last one stays as the class's own name
            register_kind(NetworkConfig, name, config_class)
        _classes[config_class] = module_class
        return module_class

    return decorate


def build(cfg: NetworkConfig) -> torch.nn.Module:
    """Config -> network with fresh weights (drawn from torch's default generator). The module keeps it as `.cfg`.

    Raises UserError where the config asks for something the network can't do.
    """
    if type(cfg) not in _classes:
        raise ConfigError(f"no network is registered for {type(cfg).__name__}")
    return _classes[type(cfg)](cfg)


def config_from_dict(data: dict) -> NetworkConfig:
    """The plain form that a network file stores (`kind` and fields) -> config. Raises ConfigError naming misfits."""
    return from_dict(NetworkConfig, data)


def known_kinds(base: type[NetworkConfig] = NetworkConfig) -> list[str]:
    """Names of the registered networks whose config derives from `base`."""
    return sorted(k for k, cls in NetworkConfig.kinds.items() if issubclass(cls, base))
