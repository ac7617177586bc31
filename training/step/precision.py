"""Half precision in both networks (Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data",
appendix): activations are half as large, and processors made for it multiply them several times as fast. Weights,
their gradients, styles, demodulation, statistics, logits, images and optimisers stay float32."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from dnnlib.errors import UserError
from training.config import TrainingConfig
from training.networks.shared.discriminator import Discriminator
from training.networks.shared.generator import Generator

DTYPES = {"auto": torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_FLOAT16_RESOLUTIONS = 4  # unless told otherwise: at lower ones its range of numbers doesn't suffice


def apply_precision(G: Generator, D: Discriminator, cfg: TrainingConfig) -> None:
    """Makes G and D compute in `cfg.precision` at their `cfg.half_resolutions` highest resolutions: what enters them is
    cast, and their layers follow their input. If that number is given, the lowest resolution stays float32.

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
        high = _first_half(len(stages), cfg)
        for i, stage in enumerate(stages):
            for module in stage:
                module.register_forward_pre_hook(_casting(dtype if i >= high else torch.float32, arguments))


def _first_half(stages: int, cfg: TrainingConfig) -> int:
    """The lowest resolution that is lowered, counted from 0."""
    if cfg.half_resolutions is None and cfg.precision != "float16":
        return 0
    return max(stages - (cfg.half_resolutions or _FLOAT16_RESOLUTIONS), 1)


def is_channels_last(cfg: TrainingConfig, device: torch.device) -> bool:
    """Whether the convolutions keep their channels last in memory: by choice, else on a CPU, and on a GPU where tensor
    cores want it."""
    if cfg.nhwc is not None:
        return cfg.nhwc
    return device.type == "cpu" or (device.type == "cuda" and DTYPES[cfg.precision] != torch.float32)


def _casting(dtype: torch.dtype, arguments: int) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    def cast(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        first = tuple(x.to(dtype) if isinstance(x, torch.Tensor) else x for x in inputs[:arguments])
        return first + inputs[arguments:]

    return cast
