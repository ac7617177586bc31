"""Presets, a file per family; docs/recipes name their sources. Importing this package registers them."""

from training.presets import stylegan2, styleformer, stylenat, r3gan, gat  # isort: skip
from training.presets import relativistic  # isort: skip
from training.presets import demo  # isort: skip
from training.presets.base import PRESETS, Preset, preset

__all__ = [
    "PRESETS", "Preset", "demo", "gat", "preset", "r3gan", "relativistic", "styleformer", "stylegan2", "stylenat"
]  # fmt: skip
