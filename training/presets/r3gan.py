"""R3GAN (Huang et al. 2024, arXiv 2501.05441), a preset per row of its table."""

from dataclasses import replace

from training.augment.pipe import PRESETS as AUGMENT_PRESETS
from training.augment.pipe import AugmentConfig
from training.config import AdaConfig, EmaConfig, OptimizerConfig, TrainingConfig
from training.networks.discriminators.r3gan import R3GANDiscriminatorConfig
from training.networks.generators.r3gan import R3GANConfig
from training.objectives.relativistic import RelativisticConfig
from training.presets.base import preset
from training.schedule import Ramp

_CHANNELS_PER_GROUP = 8


def augmentations() -> AugmentConfig:
    """Geometric transforms and cutout in full, colours half as often."""
    pipe = replace(AUGMENT_PRESETS["bgc"], cutout=1.0)
    for colour in ("brightness", "contrast", "lumaflip", "hue", "saturation"):
        setattr(pipe, colour, 0.5)
    return pipe


def _r3gan(
    widths: list[int],  # from 4x4 up
    *,
    batch: int,
    gamma: float,  # at the start; a tenth of it at the end
    ema_mimg: float,  # half-life of G_ema at the end, in millions of images
    p: float,  # of the augmentation, at the end
    ramp_mimg: float,  # length of all ramps
    half_resolutions: int,  # so many of the highest resolutions in bfloat16
) -> TrainingConfig:
    kimg = ramp_mimg * 1000

    def ramp(start: float, end: float) -> Ramp:
        return Ramp(start, end, kimg, shape="cosine")

    sizes = {"widths": widths, "blocks": [2] * len(widths), "groups": [w // _CHANNELS_PER_GROUP for w in widths]}

    def optimizer() -> OptimizerConfig:
        return OptimizerConfig(lr=ramp(2e-4, 5e-5), betas=(0.0, ramp(0.9, 0.99)))

    return TrainingConfig(
        batch=batch,
        batch_gpu=min(batch, 64),
        total_kimg=kimg,
        precision="bfloat16",
        half_resolutions=half_resolutions,
        G=R3GANConfig(**sizes),  # type: ignore[arg-type]
        D=R3GANDiscriminatorConfig(**sizes),  # type: ignore[arg-type]
        G_opt=optimizer(),
        D_opt=optimizer(),
        loss=RelativisticConfig(gamma=ramp(gamma, gamma / 10)),
        ema=EmaConfig(half_life_kimg=ramp(0, ema_mimg * 1000), rampup=None),
        ada=AdaConfig(mode="fixed", p=ramp(0, p), pipe=augmentations()),
    )


@preset("datasets/cifar10.zip", (32, 32), mirror=True)
def r3gan_cifar10(resolution: int, gpus: int) -> TrainingConfig:
    """R3GAN on CIFAR-10 32x32, --cond=1 (paper: FID 1.96)."""
    return _r3gan([768] * 4, batch=512, gamma=0.05, ema_mimg=5, p=0.55, ramp_mimg=20, half_resolutions=3)


@preset("datasets/ffhq64.zip", (64, 64), mirror=True)
def r3gan_ffhq64(resolution: int, gpus: int) -> TrainingConfig:
    """R3GAN on FFHQ 64x64 (paper: FID 1.95)."""
    widths = [768] * 4 + [384]
    return _r3gan(widths, batch=256, gamma=2, ema_mimg=0.5, p=0.3, ramp_mimg=20, half_resolutions=4)


@preset("datasets/ffhq256.zip", (256, 256), mirror=True)
def r3gan_ffhq256(resolution: int, gpus: int) -> TrainingConfig:
    """R3GAN on FFHQ 256x256 (paper: FID 2.75)."""
    widths = [768] * 4 + [384, 192, 96]
    return _r3gan(widths, batch=256, gamma=150, ema_mimg=0.5, p=0.3, ramp_mimg=20, half_resolutions=4)


@preset("datasets/imagenet32.zip", (32, 32), mirror=True)
def r3gan_imagenet32(resolution: int, gpus: int) -> TrainingConfig:
    """R3GAN on ImageNet 32x32, --cond=1 (paper: FID 1.27)."""
    return _r3gan([1536] * 4, batch=4096, gamma=0.5, ema_mimg=50, p=0.5, ramp_mimg=200, half_resolutions=3)


@preset("datasets/imagenet64.zip", (64, 64), mirror=True)
def r3gan_imagenet64(resolution: int, gpus: int) -> TrainingConfig:
    """R3GAN on ImageNet 64x64, --cond=1 (paper: FID 2.09)."""
    return _r3gan([1536] * 5, batch=4096, gamma=1, ema_mimg=50, p=0.4, ramp_mimg=200, half_resolutions=4)
