"""StyleNAT, a preset per row of the paper."""

from training.config import AdaConfig, EmaConfig, OptimizerConfig, TrainingConfig
from training.networks.discriminators.wavelet import WaveletDiscriminatorConfig
from training.networks.generators.stylenat import StyleNATConfig
from training.objectives.logistic import LogisticConfig
from training.presets.base import preset
from training.schedule import Ramp


def _stylenat(
    G: StyleNATConfig, *, gamma: float, bcr: float, iterations: int, decay_from: int, batch: int = 64
) -> TrainingConfig:
    """StyleNAT's recipe on 8 GPUs, with any number: micro-batches of 8. `iterations` are counted at `batch`."""
    total, start = iterations * batch / 1000, decay_from * batch / 1000
    cfg = TrainingConfig(
        batch=batch,
        batch_gpu=8,
        total_kimg=total,
        G=G,
        D=WaveletDiscriminatorConfig(),
        G_opt=OptimizerConfig(lr=Ramp(5e-5, 0.0, total - start, begin_kimg=start)),
        D_opt=OptimizerConfig(lr=Ramp(2e-4, 0.0, total - start, begin_kimg=start), max_grad_norm=5.0),
        ema=EmaConfig(half_life_steps=10000 / 32, rampup=None),
        ada=AdaConfig(mode="noaug"),
    )
    cfg.loss = LogisticConfig(
        r1_gamma=gamma,
        pl_weight=0,
        pl_interval=None,
        style_mixing=0,
        bcr_real=bcr,
        bcr_fake=bcr,
        image_norm="imagenet",
    )
    return cfg


@preset("datasets/ffhq256.zip", (256, 256), mirror=True)
def ffhq256(resolution: int, gpus: int) -> TrainingConfig:
    """StyleNAT on FFHQ 256x256 (paper: FID 2.05)."""
    return _stylenat(StyleNATConfig(), gamma=10, bcr=10, iterations=1_000_000, decay_from=775_000)


@preset("datasets/ffhq1024.zip", (1024, 1024), mirror=True)
def ffhq1024(resolution: int, gpus: int) -> TrainingConfig:
    """StyleNAT on FFHQ 1024x1024 (paper: FID 4.17)."""
    return _stylenat(StyleNATConfig(), gamma=10, bcr=10, iterations=1_000_000, decay_from=775_000)


@preset("datasets/church256.zip", (256, 256), mirror=True)
def church256(resolution: int, gpus: int) -> TrainingConfig:
    """StyleNAT with up to six dilations on LSUN Church 256x256 (paper: FID 3.40)."""
    G = StyleNATConfig(
        min_heads=8,
        kernels=[[3], [7], [7], [7], [7], [7], [7]],
        dilations=[[1], [1], [1, 2], [1, 2, 4], [1, 2, 4, 8], [1, 2, 4, 8, 16], [1, 2, 4, 8, 16, 32]],
    )
    return _stylenat(G, gamma=5, bcr=0, iterations=1_500_000, decay_from=1_300_000)
