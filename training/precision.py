"""Half precision in the discriminator's highest resolutions (Karras et al. 2020, "Training Generative Adversarial
Networks with Limited Data", appendix E): activations are half as large there; weights, gradients, optimiser, the lower
resolutions and the epilogue stay float32."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from dnnlib.errors import UserError
from training.config import TrainingConfig
from training.networks.discriminator import StyleGAN2Discriminator

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def apply_precision(D: nn.Module, cfg: TrainingConfig) -> None:
    """Makes the first `cfg.half_resolutions` blocks of D compute in `cfg.precision`; its layers follow their input.

    UserError for a discriminator that has no such blocks.
    """
    dtype = DTYPES[cfg.precision]
    if dtype == torch.float32:
        return
    if not isinstance(D, StyleGAN2Discriminator):
        raise UserError(f"--precision={cfg.precision} is for the StyleGAN2 discriminator; leave it out for this one")
    for i, name in enumerate(D.block_names):
        low = i < cfg.half_resolutions
        D.get_submodule(name).register_forward_pre_hook(_casting(dtype if low else torch.float32))
    D.b4.register_forward_pre_hook(_casting(torch.float32))


def _casting(dtype: torch.dtype) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    def cast(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(x.to(dtype) if isinstance(x, torch.Tensor) else x for x in inputs)

    return cast
