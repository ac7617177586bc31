"""Styleformer and StyleNAT with the relativistic objective. These are ours: no paper has them, none has been trained to
its end. Generator, discriminator, optimisers, batch, EMA and length are those of the preset of the same name without
`_rp`; objective, schedules and augmentation those of R3GAN's row for pictures of that kind (presets/r3gan.py)."""

from training.config import AdaConfig, TrainingConfig
from training.objectives.relativistic import RelativisticConfig
from training.presets.base import preset
from training.presets.r3gan import augmentations
from training.presets.styleformer import celeba, church, cifar, stl10
from training.presets.stylenat import church256, ffhq256
from training.schedule import Ramp

_RAMP_KIMG = 20_000.0  # length of all ramps, as in R3GAN


def _relativistic(cfg: TrainingConfig, gamma: float, p: float) -> TrainingConfig:
    """In place of the logistic loss and all that belongs to it (lazy R1, path length, style mixing, bCR): `gamma`
    weighs R1 and R2 at the start, a tenth of it at the end; `p` is the augmentation's at the end."""
    cfg.loss = RelativisticConfig(gamma=Ramp(gamma, gamma / 10, _RAMP_KIMG, shape="cosine"))
    cfg.ada = AdaConfig(mode="fixed", p=Ramp(0, p, _RAMP_KIMG, shape="cosine"), pipe=augmentations())
    return cfg


@preset("datasets/cifar10.zip", (32, 32), mirror=True)
def cifar_rp(resolution: int, gpus: int) -> TrainingConfig:
    """`cifar` with the relativistic objective: ours, not a paper's."""
    return _relativistic(cifar(resolution, gpus), gamma=0.05, p=0.55)


@preset("datasets/stl10.zip", (48, 48), mirror=True)
def stl10_rp(resolution: int, gpus: int) -> TrainingConfig:
    """`stl10` with the relativistic objective: ours, not a paper's."""
    return _relativistic(stl10(resolution, gpus), gamma=0.3, p=0.3)  # between R3GAN's for 32 and for 64 pixels


@preset("datasets/celeba.zip", (64, 64), mirror=True)
def celeba_rp(resolution: int, gpus: int) -> TrainingConfig:
    """`celeba` with the relativistic objective: ours, not a paper's."""
    return _relativistic(celeba(resolution, gpus), gamma=2, p=0.3)


@preset("datasets/church.zip", (128, 128), mirror=True)
def church_rp(resolution: int, gpus: int) -> TrainingConfig:
    """`church` with the relativistic objective: ours, not a paper's."""
    return _relativistic(church(resolution, gpus), gamma=17, p=0.3)  # between R3GAN's for 64 and for 256 pixels


@preset("datasets/ffhq256.zip", (256, 256), mirror=True)
def ffhq256_rp(resolution: int, gpus: int) -> TrainingConfig:
    """`ffhq256` with the relativistic objective: ours, not a paper's."""
    return _relativistic(ffhq256(resolution, gpus), gamma=150, p=0.3)


@preset("datasets/church256.zip", (256, 256), mirror=True)
def church256_rp(resolution: int, gpus: int) -> TrainingConfig:
    """`church256` with the relativistic objective: ours, not a paper's."""
    return _relativistic(church256(resolution, gpus), gamma=150, p=0.3)
