"""GAT (arXiv 2509.24935): its sizes and patches, in pixels, with its objective and optimiser settings."""

from training.config import AdaConfig, EmaConfig, OptimizerConfig, TrainingConfig
from training.networks.discriminators.gat import GATDiscriminatorConfig
from training.networks.generators.gat import GATConfig
from training.networks.shared.gat import MODEL_SIZES
from training.objectives.relativistic import RelativisticConfig
from training.presets.base import preset

_REFERENCE_WIDTH = 768  # of the learning rate 2e-4, which falls with the width


def gat_config(depth: int, width: int, heads: int, patch: int) -> TrainingConfig:
    """GAT's recipe around networks of these sizes, but for the feature alignment."""

    def optimizer() -> OptimizerConfig:
        lr = 2e-4 * _REFERENCE_WIDTH / width
        return OptimizerConfig(kind="adamw", lr=lr, betas=(0.0, 0.99), max_grad_norm=1.0)

    return TrainingConfig(
        batch=512,
        batch_gpu=64,
        G=GATConfig(depth=depth, width=width, heads=heads, patch=patch),
        D=GATDiscriminatorConfig(depth=depth, width=width, heads=heads, patch=patch),
        G_opt=optimizer(),
        D_opt=optimizer(),
        loss=RelativisticConfig(gamma=0.1, penalty="approximate", guidance="mng"),
        ema=EmaConfig(half_life_steps=692.8, rampup=None),  # 0.999 per step
        ada=AdaConfig(mode="diffaug"),
    )


def _of_size(size: str, patch: int) -> TrainingConfig:
    return gat_config(*MODEL_SIZES[size], patch=patch)


@preset()
def gat_s2(resolution: int, gpus: int) -> TrainingConfig:
    """GAT-S/2: 12 blocks of width 384."""
    return _of_size("s", patch=2)


@preset()
def gat_b2(resolution: int, gpus: int) -> TrainingConfig:
    """GAT-B/2: 12 blocks of width 768."""
    return _of_size("b", patch=2)


@preset()
def gat_l2(resolution: int, gpus: int) -> TrainingConfig:
    """GAT-L/2: 24 blocks of width 1024."""
    return _of_size("l", patch=2)


@preset()
def gat_xl2(resolution: int, gpus: int) -> TrainingConfig:
    """GAT-XL/2: 28 blocks of width 1152."""
    return _of_size("xl", patch=2)
