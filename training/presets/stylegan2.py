"""StyleGAN2-ADA's base configurations."""

from training.config import EmaConfig, TrainingConfig
from training.networks.discriminators.stylegan2 import StyleGAN2DiscriminatorConfig
from training.networks.generators.stylegan2 import StyleGAN2Config
from training.presets.base import auto_gamma, preset, stylegan2_config


@preset()
def auto(resolution: int, gpus: int) -> TrainingConfig:
    """StyleGAN2 with settings chosen from the resolution and the number of GPUs."""
    batch = max(min(gpus * min(4096 // resolution, 32), 64), gpus)
    channel_base = 32768 if resolution >= 512 else 16384
    return stylegan2_config(
        StyleGAN2Config(mapping_layers=2, channel_base=channel_base),
        StyleGAN2DiscriminatorConfig(channel_base=channel_base, mbstd_group_size=min(batch // gpus, 4)),
        batch=batch,
        lr=0.002 if resolution >= 1024 else 0.0025,
        gamma=auto_gamma(resolution, batch),
        ema=EmaConfig(half_life_kimg=batch * 10 / 32),
    )


def _stylegan2(batch: int, mbstd: int, channel_base: int, lr: float, gamma: float, ema_kimg: float) -> TrainingConfig:
    return stylegan2_config(
        StyleGAN2Config(channel_base=channel_base),
        StyleGAN2DiscriminatorConfig(channel_base=channel_base, mbstd_group_size=mbstd),
        batch=batch,
        lr=lr,
        gamma=gamma,
        ema=EmaConfig(half_life_kimg=ema_kimg, rampup=None),
    )


@preset()
def stylegan2(resolution: int, gpus: int) -> TrainingConfig:
    """StyleGAN2's configuration F for 1024 px (8 GPUs)."""
    return _stylegan2(batch=32, mbstd=4, channel_base=32768, lr=0.002, gamma=10, ema_kimg=10)


@preset()
def paper256(resolution: int, gpus: int) -> TrainingConfig:
    """StyleGAN2-ADA's FFHQ 256 and LSUN settings (8 GPUs)."""
    return _stylegan2(batch=64, mbstd=8, channel_base=16384, lr=0.0025, gamma=1, ema_kimg=20)


@preset()
def paper512(resolution: int, gpus: int) -> TrainingConfig:
    """StyleGAN2-ADA's AFHQ and BreCaHAD 512 settings (8 GPUs)."""
    return _stylegan2(batch=64, mbstd=8, channel_base=32768, lr=0.0025, gamma=0.5, ema_kimg=20)


@preset()
def paper1024(resolution: int, gpus: int) -> TrainingConfig:
    """StyleGAN2-ADA's MetFaces 1024 settings (8 GPUs)."""
    return _stylegan2(batch=32, mbstd=4, channel_base=32768, lr=0.002, gamma=2, ema_kimg=10)
