"""Styleformer, Styleformer-L and Styleformer-C, a preset per row of the paper."""

from training.config import AdaConfig, EmaConfig, TrainingConfig
from training.networks.discriminators.stylegan2 import StyleGAN2DiscriminatorConfig
from training.networks.generators.styleformer import StyleformerConfig
from training.networks.generators.styleformer_c import StyleformerCConfig
from training.presets.base import auto_gamma, preset, stylegan2_config


@preset("datasets/cifar10.zip", (32, 32))
def cifar(resolution: int, gpus: int) -> TrainingConfig:
    """Styleformer on CIFAR-10 32x32 (paper: FID 2.82, IS 9.94)."""
    return stylegan2_config(
        StyleformerConfig(mapping_layers=2, g_dict=[1024, 512, 512], num_layers=[1, 3, 3]),
        StyleGAN2DiscriminatorConfig(architecture="orig", mbstd_group_size=32),
        batch=32,
        lr=0.0025,
        gamma=0.01,
        ema=EmaConfig(half_life_kimg=500),
        total_kimg=100000,
        pl_weight=0,
        style_mixing=0,
    )


def _styleformer(G: StyleformerConfig, resolution: int) -> TrainingConfig:
    """Ours: the originals publish no settings beyond the architecture for these data sets."""
    large = resolution >= 64
    return stylegan2_config(
        G,
        StyleGAN2DiscriminatorConfig(),
        batch=32,
        lr=0.0025,
        gamma=auto_gamma(resolution, 32),
        ema=EmaConfig(half_life_kimg=10),
        total_kimg=100000,
        pl_weight=2 if large else 0,
        style_mixing=0.9,
        ada=AdaConfig(p_max=0.7) if G.linformer else None,
    )


@preset("datasets/stl10.zip", (48, 48))
def stl10(resolution: int, gpus: int) -> TrainingConfig:
    """Styleformer on STL-10 48x48, grown from 12x12 (paper: FID 15.17, IS 11.01)."""
    G = StyleformerConfig(g_dict=[1024, 256, 64], num_layers=[1, 3, 3], start_resolution=(12, 12))
    return _styleformer(G, resolution)


@preset("datasets/celeba.zip", (64, 64))
def celeba(resolution: int, gpus: int) -> TrainingConfig:
    """Styleformer-L on CelebA 64x64 (paper: FID 3.66)."""
    G = StyleformerConfig(g_dict=[1024, 256, 64, 64], num_layers=[1, 2, 1, 1], linformer=True)
    return _styleformer(G, resolution)


@preset("datasets/church.zip", (128, 128))
def church(resolution: int, gpus: int) -> TrainingConfig:
    """Styleformer-L on LSUN Church 128x128 (paper: FID 7.99)."""
    G = StyleformerConfig(g_dict=[1024, 256, 64, 64, 64], num_layers=[1, 2, 1, 1, 1], linformer=True)
    return _styleformer(G, resolution)


def _styleformer_c(resolution: int, channel_base: int) -> TrainingConfig:
    """Ours: the paper names the data sets and publishes no training settings."""
    return stylegan2_config(
        StyleformerCConfig(channel_base=channel_base),
        StyleGAN2DiscriminatorConfig(channel_base=channel_base),
        batch=32,
        lr=0.0025,
        gamma=auto_gamma(resolution, 32),
        ema=EmaConfig(half_life_kimg=10),
    )


@preset("datasets/clevr.zip", (256, 256))
def clevr(resolution: int, gpus: int) -> TrainingConfig:
    """Styleformer-C on CLEVR 256x256."""
    return _styleformer_c(resolution, channel_base=16384)


@preset("datasets/cityscapes.zip", (256, 256), mirror=True)
def cityscapes(resolution: int, gpus: int) -> TrainingConfig:
    """Styleformer-C on Cityscapes 256x256; other shapes by --start-resolution, such as 8,16 for 256x512."""
    return _styleformer_c(resolution, channel_base=16384)


@preset("datasets/afhq512.zip", (512, 512), mirror=True)
def afhq512(resolution: int, gpus: int) -> TrainingConfig:
    """Styleformer-C on AFHQ-Cat 512x512."""
    return _styleformer_c(resolution, channel_base=32768)
