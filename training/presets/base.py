"""What a preset is: (resolution, gpus) -> a complete TrainingConfig, offered under its function's name."""

from collections.abc import Callable
from dataclasses import dataclass

from training.config import AdaConfig, EmaConfig, OptimizerConfig, TrainingConfig
from training.networks.discriminators.stylegan2 import StyleGAN2DiscriminatorConfig
from training.networks.registry import GeneratorConfig
from training.objectives.logistic import LogisticConfig

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


def stylegan2_config(
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
    """The StyleGAN2 recipe (logistic loss, R1, path length, ADA) around any generator."""
    return TrainingConfig(
        batch=batch,
        total_kimg=total_kimg,
        G=G,
        D=D,
        G_opt=OptimizerConfig(lr=lr),
        D_opt=OptimizerConfig(lr=lr),
        loss=LogisticConfig(r1_gamma=gamma, pl_weight=pl_weight, style_mixing=style_mixing),
        ema=ema,
        ada=ada or AdaConfig(),
    )
