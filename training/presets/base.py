"""Presets: (resolution, gpus) -> a complete TrainingConfig. docs/recipes name their sources."""

from collections.abc import Callable
from dataclasses import dataclass

from training.config import AdaConfig, EmaConfig, LossConfig, OptimizerConfig, TrainingConfig
from training.networks.discriminator import StyleGAN2DiscriminatorConfig
from training.networks.registry import GeneratorConfig
from training.networks.styleformer import StyleformerConfig
from training.networks.styleformer_c import StyleformerCConfig
from training.networks.stylegan2 import StyleGAN2Config
from training.networks.stylenat import StyleNATConfig
from training.networks.wavelet_discriminator import WaveletDiscriminatorConfig

PresetFunction = Callable[[int, int], TrainingConfig]


@dataclass(frozen=True)
class Preset:
    """A preset and the data set it was made for."""

    build: PresetFunction  # (larger image side in pixels, processes) -> config
    data: str | None  # where that data set is expected; None: --data has to say
    resolution: tuple[int, int] | None  # its (height, width); None: any
    mirror: bool  # train on mirror images too, unless --mirror says otherwise
    summary: str  # one line


PRESETS: dict[str, Preset] = {}


def preset(
    data: str | None = None, resolution: tuple[int, int] | None = None, mirror: bool = False
) -> Callable[[PresetFunction], PresetFunction]:
    """Decorator: offers a function as `--cfg=NAME`."""

    def decorate(fn: PresetFunction) -> PresetFunction:
        PRESETS[fn.__name__] = Preset(fn, data, resolution, mirror, (fn.__doc__ or "").partition("\n")[0])
        return fn

    return decorate


def auto_gamma(resolution: int, batch: int) -> float:
    """The R1 weight that StyleGAN2-ADA's `auto` derives from resolution (pixels) and batch."""
    return 0.0002 * resolution**2 / batch


def _config(
    G: GeneratorConfig,
    D: StyleGAN2DiscriminatorConfig,
    *,
    batch: int,
    lr: float,
    gamma: float,
    ema: EmaConfig,
    total_kimg: float = 25000.0,
    pl_weight: float = 2.0,
    style_mixing: float = 0.9,
    ada: AdaConfig | None = None,
) -> TrainingConfig:
    return TrainingConfig(
        batch=batch,
        total_kimg=total_kimg,
        G=G,
        D=D,
        G_opt=OptimizerConfig(lr=lr),
        D_opt=OptimizerConfig(lr=lr),
        loss=LossConfig(r1_gamma=gamma, pl_weight=pl_weight, style_mixing=style_mixing),
        ema=ema,
        ada=ada or AdaConfig(),
    )


@preset()
def auto(resolution: int, gpus: int) -> TrainingConfig:
    """StyleGAN2 with settings chosen from the resolution and the number of GPUs."""
    batch = max(min(gpus * min(4096 // resolution, 32), 64), gpus)
    channel_base = 32768 if resolution >= 512 else 16384
    return _config(
        StyleGAN2Config(mapping_layers=2, channel_base=channel_base),
        StyleGAN2DiscriminatorConfig(channel_base=channel_base, mbstd_group_size=min(batch // gpus, 4)),
        batch=batch,
        lr=0.002 if resolution >= 1024 else 0.0025,
        gamma=auto_gamma(resolution, batch),
        ema=EmaConfig(half_life_kimg=batch * 10 / 32),
    )


def _stylegan2(batch: int, mbstd: int, channel_base: int, lr: float, gamma: float, ema_kimg: float) -> TrainingConfig:
    return _config(
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


@preset("datasets/cifar10.zip", (32, 32))
def cifar(resolution: int, gpus: int) -> TrainingConfig:
    """Styleformer on CIFAR-10 32x32 (paper: FID 2.82, IS 9.94)."""
    return _config(
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
    return _config(
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


@preset("datasets/noto-emoji-32.zip", (32, 32))
def demo(resolution: int, gpus: int) -> TrainingConfig:
    """A small Styleformer-L for the embedded 32x32 emoji: about 12 minutes on two CPU cores.

    So short a run is over before the discriminator overfits, hence no augmentation; small batches make more steps of
    the same pictures.
    """
    cfg = _config(
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


def _styleformer_c(resolution: int, channel_base: int) -> TrainingConfig:
    """Ours: the paper names the data sets and publishes no training settings."""
    return _config(
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


@preset("datasets/noto-emoji-32.zip", (32, 32))
def demo_c(resolution: int, gpus: int) -> TrainingConfig:
    """A small Styleformer-C for the embedded 32x32 emoji, trained as `demo` is: minutes on two CPU cores."""
    cfg = demo(resolution, gpus)
    cfg.G = StyleformerCConfig(mapping_layers=2, g_dict=[256, 128], num_layers=[1, 1], channel_base=1024)
    cfg.ada.p_max = None
    return cfg


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
        G_opt=OptimizerConfig(lr=5e-5, decay_start_kimg=start, decay_end_kimg=total),
        D_opt=OptimizerConfig(lr=2e-4, decay_start_kimg=start, decay_end_kimg=total, max_grad_norm=5.0),
        ema=EmaConfig(half_life_steps=10000 / 32, rampup=None),
        ada=AdaConfig(mode="noaug"),
    )
    cfg.loss = LossConfig(
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


@preset("datasets/noto-emoji-32.zip", (32, 32))
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
    cfg.loss = LossConfig(
        r1_gamma=0.5, pl_weight=0, pl_interval=None, style_mixing=0, bcr_real=1, bcr_fake=1, image_norm="imagenet"
    )
    return cfg
