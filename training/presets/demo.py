"""Presets for the embedded pictures, small enough for two CPU cores. How `demo` was found: docs/recipes/demo.md."""

from typing import Any

from training.config import AdaConfig, EmaConfig, OptimizerConfig, TrainingConfig
from training.networks.discriminators.stylegan2 import StyleGAN2DiscriminatorConfig
from training.networks.discriminators.wavelet import WaveletDiscriminatorConfig
from training.networks.generators.gat import GATConfig
from training.networks.generators.styleformer import StyleformerConfig
from training.networks.generators.styleformer_c import StyleformerCConfig
from training.networks.generators.stylegan2 import StyleGAN2Config
from training.networks.generators.stylenat import StyleNATConfig
from training.networks.registry import GeneratorConfig
from training.objectives.logistic import LogisticConfig
from training.objectives.relativistic import RelativisticConfig
from training.presets.base import preset, stylegan2_config

_EMOJI = "datasets/noto-emoji-32.zip"
_SIDES = (32, 32)
_SMALL: dict[str, Any] = {"z_dim": 128, "w_dim": 128, "mapping_layers": 2}


def _quick(G: GeneratorConfig, kimg: float) -> TrainingConfig:
    """R3GAN's objective, a discriminator whose dearest convolutions see wavelets of half the side, high learning rates,
    and small batches, which make more steps of the same pictures. So short a run is over before the discriminator
    overfits, hence no augmentation."""
    return TrainingConfig(
        batch=8,
        total_kimg=kimg,
        kimg_per_tick=1.0,
        snap=10,
        metrics=["kid1k_lite0"],
        G=G,
        D=WaveletDiscriminatorConfig(channels=[32, 64, 128], spectral_norm=False),
        G_opt=OptimizerConfig(lr=0.005),
        D_opt=OptimizerConfig(lr=0.005),
        loss=RelativisticConfig(gamma=0.1, interval=16),
        ema=EmaConfig(half_life_kimg=5),
        ada=AdaConfig(mode="noaug"),
    )


@preset(_EMOJI, _SIDES)
def demo(resolution: int, gpus: int) -> TrainingConfig:
    """A small Styleformer-C for the embedded 32x32 emoji: minutes on two CPU cores."""
    return _quick(StyleformerCConfig(**_SMALL, g_dict=[128, 64], num_layers=[1, 1], channel_base=512), kimg=50)


@preset(_EMOJI, _SIDES)
def demo_long(resolution: int, gpus: int) -> TrainingConfig:
    """`demo` left alone for an hour."""
    cfg = demo(resolution, gpus)
    cfg.total_kimg, cfg.kimg_per_tick = 400, 5
    return cfg


@preset(_EMOJI, _SIDES)
def demo_stylegan2(resolution: int, gpus: int) -> TrainingConfig:
    """A small StyleGAN2 for the embedded 32x32 emoji, trained as `demo` is: the baseline."""
    return _quick(StyleGAN2Config(**_SMALL, channel_base=512, channel_max=128), kimg=60)


@preset(_EMOJI, _SIDES)
def demo_l(resolution: int, gpus: int) -> TrainingConfig:
    """A small Styleformer-L for the embedded 32x32 emoji, by StyleGAN2's recipe: about 12 minutes on two CPU cores."""
    cfg = stylegan2_config(
        StyleformerConfig(mapping_layers=2, g_dict=[128, 64, 32], num_layers=[1, 1, 1], linformer=True),
        StyleGAN2DiscriminatorConfig(channel_base=1024, channel_max=128),
        batch=16,
        lr=0.0025,
        gamma=0.1,
        ema=EmaConfig(half_life_kimg=5),
        total_kimg=40,
        pl_weight=0,
        style_mixing=0,
        ada=AdaConfig(mode="noaug", p_max=0.7),
    )
    cfg.kimg_per_tick, cfg.snap = 2.0, 5
    cfg.metrics = ["kid1k_lite0"]
    return cfg


@preset(_EMOJI, _SIDES)
def demo_nat(resolution: int, gpus: int) -> TrainingConfig:
    """A small StyleNAT with bCR for the embedded 32x32 emoji: a quarter of an hour on a CPU."""
    cfg = TrainingConfig(
        batch=16,
        total_kimg=28,
        kimg_per_tick=2.0,
        snap=5,
        G=StyleNATConfig(
            z_dim=128,
            w_dim=128,
            mapping_layers=2,
            channels=[128, 96, 64, 32],
            kernels=[[3], [5], [5], [3]],
            min_heads=2,
            mlp_ratio=2,
        ),
        D=WaveletDiscriminatorConfig(channels=[32, 64, 128], spectral_norm=False),
        G_opt=OptimizerConfig(lr=5e-4),
        D_opt=OptimizerConfig(lr=2e-3, max_grad_norm=5.0),
        ema=EmaConfig(half_life_kimg=5),
        ada=AdaConfig(mode="noaug"),
        metrics=["kid1k_lite0"],
    )
    cfg.loss = LogisticConfig(
        r1_gamma=0.5, pl_weight=0, pl_interval=None, style_mixing=0, bcr_real=1, bcr_fake=1, image_norm="imagenet"
    )
    return cfg


@preset(_EMOJI, _SIDES)
def demo_gat(resolution: int, gpus: int) -> TrainingConfig:
    """A small GAT generator for the embedded 32x32 emoji, trained as `demo` is: minutes on two CPU cores."""
    cfg = _quick(GATConfig(patch=4, depth=4, width=96, heads=4), kimg=40)
    cfg.G_opt = OptimizerConfig(kind="adamw", lr=0.002, max_grad_norm=1.0)
    return cfg
