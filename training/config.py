"""The complete configuration of a training run. A field here is the only place where its default lives."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from dnnlib.config import MAX_NUMBER, Count, Layers, Range, Share, Weight
from training.augment.diffaugment import DiffAugmentConfig
from training.augment.pipe import PRESETS as AUGMENT_PRESETS
from training.augment.pipe import AugmentConfig
from training.ema.power import LONGEST, SHORTEST
from training.networks.discriminators.stylegan2 import StyleGAN2DiscriminatorConfig
from training.networks.generators.styleformer import StyleformerConfig
from training.networks.registry import DiscriminatorConfig, GeneratorConfig
from training.objectives.base import ObjectiveConfig
from training.objectives.logistic import LogisticConfig
from training.schedule import Ramp, Value, at


@dataclass
class DataConfig:
    """Which images to train on."""

    path: str = "datasets/cifar10.zip"  # zip or folder made by dataset_tool.py
    use_labels: bool = False  # train conditionally on the labels of dataset.json
    max_size: Annotated[int, Range(1, MAX_NUMBER)] | None = None  # a random subset of this size
    mirror: bool = False  # add the horizontal mirror image of every picture


@dataclass
class OptimizerConfig:
    """Adam (Kingma & Ba 2015) or AdamW (Loshchilov & Hutter 2019)."""

    kind: Literal["adam", "adamw"] = "adam"
    lr: Value = 0.0025
    betas: tuple[Share | Ramp, Share | Ramp] = (0.0, 0.99)
    eps: Weight = 1e-8
    weight_decay: Weight = 0.0
    max_grad_norm: Weight | None = None  # of the main step (not of lazy R1, path length): gradients are clipped to this


@dataclass
class EmaConfig:
    """Exponential moving average of the generator's weights."""

    half_life_kimg: Value = 10.0
    half_life_steps: Weight | None = None  # in steps whatever the batch, in place of half_life_kimg
    rampup: Weight | None = 0.05  # half-life is at most this share of the images seen so far; None: no ramp-up
    posthoc: tuple[Annotated[float, Range(SHORTEST, LONGEST)], ...] = ()  # lengths (sigma_rel) of averages kept besides
    posthoc_kimg: Annotated[float, Range(0.001, 1e9)] | None = None  # between storing these; None: at each snapshot

    def half_life_images(self, nimg: int, batch: int) -> float:
        """Half-life in images after `nimg` images, at `batch` images per step."""
        steps = self.half_life_steps
        full = at(self.half_life_kimg, nimg) * 1000 if steps is None else steps * batch
        return full if self.rampup is None else min(full, nimg * self.rampup)


@dataclass
class AdaConfig:
    """Discriminator augmentation: adaptive (Karras et al. 2020, "Training GANs with Limited Data"), fixed, or none."""

    mode: Literal["noaug", "ada", "fixed", "diffaug"] = "ada"
    p: Share | Ramp = 0.0  # probability: at the start, or throughout (a number or a ramp) if fixed
    p_max: Weight | None = None  # upper bound of the adapted p
    target: Annotated[float, Range(-1, 1)] = 0.6  # mean sign of D(real) that p is adapted to
    interval: Count = 4  # batches between adaptations
    speed_kimg: Annotated[float, Range(1e-6, 1e9)] = 500.0  # images for p to move by 1
    pipe: AugmentConfig = field(default_factory=lambda: replace(AUGMENT_PRESETS["bgc"]))
    diffaug: DiffAugmentConfig = field(default_factory=DiffAugmentConfig)  # of mode diffaug, in place of the pipe


@dataclass
class TrainingConfig:
    """Everything that determines a run, but for where it is written."""

    preset: str = "auto"
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    gpus: Annotated[int, Range(1, 4096)] = 1  # processes; without CUDA they share the CPU
    batch: Count = 32  # images per step, all processes together
    batch_gpu: Count | None = None  # images per micro-batch, at most batch / gpus; None: just that
    total_kimg: Weight = 25000.0
    kimg_per_tick: Annotated[float, Range(0.001, 1e9)] = 4.0
    snap: Annotated[int, Range(1, 10**9)] = 50  # ticks between snapshots (network, pictures, metrics)
    metrics: list[str] = field(default_factory=lambda: ["fid50k_full"])
    resume: str | None = None  # transfer learning: network file, URL or known name whose tensors to start from
    keep_snapshots: Count | None = None  # network snapshots that stay, besides each metric's best; None: all
    workers: Annotated[int, Range(0, 256)] = 0  # processes per rank that decode images ahead; 0: none
    wandb: str | None = None  # project of Weights & Biases to report to
    trackers: list[str] = field(default_factory=list)  # of register_tracker, which an --import file calls
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # auto: float32 or what the launcher finds
    half_resolutions: Layers | None = None  # so many of the highest in G and in D; None: all, 4 of float16
    compile: bool = False  # torch.compile for the main phases
    nhwc: bool | None = None  # keep the convolutions' tensors channels-last; None: but in float32 on a GPU
    nobench: bool = False  # CUDA: don't let cuDNN pick algorithms by timing
    deterministic: bool = False  # only algorithms that give the same bits again, also on a GPU; slower there
    allow_tf32: bool = False  # CUDA: TensorFloat-32 in matrix products and convolutions
    data: DataConfig = field(default_factory=DataConfig)
    G: GeneratorConfig = field(default_factory=StyleformerConfig)
    D: DiscriminatorConfig = field(default_factory=StyleGAN2DiscriminatorConfig)
    G_opt: OptimizerConfig = field(default_factory=OptimizerConfig)
    D_opt: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: ObjectiveConfig = field(default_factory=LogisticConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    ada: AdaConfig = field(default_factory=AdaConfig)

    @property
    def micro_batch(self) -> int:
        """Images per micro-batch."""
        return min(self.batch_gpu or self.batch, self.batch // self.gpus)
