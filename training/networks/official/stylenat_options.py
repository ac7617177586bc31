"""Options that official StyleNAT checkpoints record (`args.runs`), held against what our networks compute."""

from collections.abc import Mapping
from typing import Any

from dnnlib.errors import UserError

LR_MLP = 0.01  # learning rate multiplier of the mapping network where nothing is recorded

# Read into the config, sizes that the tensors show, settings of training, or dropout, which acts in training only.
_HARMLESS = (
    "style_dim n_mlp lr_mlp channel_multiplier min_heads mlp_ratio kernels dilations block_type use_checkpoint size "
    "proj_drop attn_drop drop_rate attn_drop_rate sn lr reg_every params"
)
GENERATOR: Mapping[str, tuple[Any, ...]] = {  # option -> the values that mean what ours does
    "qkv_bias": (True,),
    "qk_scale": (None,),
    "enable_full_resolution": (8,),
}
DISCRIMINATOR: Mapping[str, tuple[Any, ...]] = {"blur_kernel": ([1, 3, 3, 1],), "ssd": (False,)}


def check_options(given: Mapping[str, Any], right: Mapping[str, tuple[Any, ...]], source: str) -> None:
    """UserError that names an option which our network can't follow; one that is switched off is no matter."""
    for name, value in given.items():
        if name in _HARMLESS.split() or value is None or value in right.get(name, (False,)):
            continue
        meant = f" (only {right[name][0]} is)" if name in right else ""
        raise UserError(f"{source} was trained with {name}={str(value)[:60]}: not known here{meant}")
