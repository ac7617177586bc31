"""Half precision in the highest resolutions of both networks (Karras et al. 2020, "Training Generative Adversarial
Networks with Limited Data", appendix): activations are half as large there. Weights, their gradients, styles,
normalisation statistics, images, optimisers and the lowest resolution stay float32."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from dnnlib.errors import UserError
from training.config import TrainingConfig
from training.networks.shared.discriminator import Discriminator
from training.networks.shared.generator import Generator

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def apply_precision(G: Generator, D: Discriminator, cfg: TrainingConfig) -> None:
    """Makes the `cfg.half_resolutions` highest resolutions of G and D compute in `cfg.precision`, but not the lowest:
    what enters them is cast, and their layers follow their input.

    UserError for a network that doesn't say which modules those are.
    """
    dtype = DTYPES[cfg.precision]
    if dtype == torch.float32:
        return
    # A generator's further inputs are styles, which stay float32; a discriminator's are features and images.
    networks: list[tuple[str, Generator | Discriminator, int]] = [("generator", G, 1), ("discriminator", D, 2)]
    for name, network, arguments in networks:
        stages = network.resolution_modules()
        if not stages:
            raise UserError(f"--precision={cfg.precision} is not for this {name}: leave it out")
        high = max(len(stages) - cfg.half_resolutions, 1)
        for i, stage in enumerate(stages):
            for module in stage:
                module.register_forward_pre_hook(_casting(dtype if i >= high else torch.float32, arguments))


def is_channels_last(cfg: TrainingConfig, device: torch.device) -> bool:
    """Whether D's convolutions keep their channels last in memory: by choice, else where tensor cores want it."""
    return device.type == "cuda" and cfg.precision != "float32" if cfg.nhwc is None else cfg.nhwc


def _casting(dtype: torch.dtype, arguments: int) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    def cast(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        first = tuple(x.to(dtype) if isinstance(x, torch.Tensor) else x for x in inputs[:arguments])
        return first + inputs[arguments:]

    return cast
