"""Constructor arguments that official files record, held against what our networks compute.

An argument that changes the numbers and that ours has no field for is refused by its name: a network built without it
would give wrong pictures. At its default an argument is no matter.
"""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from dnnlib.errors import UserError
from torch_utils.ops.upfirdn2d import setup_filter
from training.networks.shared.layers import RESAMPLE_TAPS

# Read into the config, sizes that the tensors show, or without influence on what a finished network computes.
_HARMLESS = (
    "z_dim c_dim w_dim img_resolution img_channels num_ws num_layers embed_features layer_features w_avg_beta "
    "resolution in_channels out_channels tmp_channels channel_base channel_max kernel_size cmap_dim "
    "mbstd_group_size mbstd_num_channels group_size num_channels architecture conv_clamp "
    "num_fp16_res use_fp16 fp16_channels_last channels_last freeze_layers first_layer_idx trainable "
    "is_first is_last bias bias_init up down "
    "G_dict depth minimum_head linformer h_dim out_dim seq_length proj_weight"
)
_LAYERS: Mapping[str, tuple[Any, ...]] = {"activation": ("lrelu",), "use_noise": (True,)}
_RIGHT: Mapping[str, Mapping[str, tuple[Any, ...]]] = {  # class -> argument -> the values that mean what ours does
    "MappingNetwork": {"activation": ("lrelu",), "lr_multiplier": (0.01,)},
    "SynthesisNetwork": _LAYERS,
    "SynthesisBlock": _LAYERS,
    "SynthesisLayer": _LAYERS,
    "EncoderBlock": _LAYERS,
    "Encoderlayer": _LAYERS,
    "DiscriminatorBlock": _LAYERS,
    "DiscriminatorEpilogue": _LAYERS,
    "Conv2dLayer": {"activation": ("linear", "lrelu")},
}
_CLASS_OF_TABLE = {  # `mapping_kwargs` and the like go on to a module of this class
    "mapping_kwargs": "MappingNetwork",
    "synthesis_kwargs": "SynthesisNetwork",
    "block_kwargs": "DiscriminatorBlock",
    "epilogue_kwargs": "DiscriminatorEpilogue",
}


def check_arguments(class_name: str, arguments: Mapping[str, Any], honoured: Collection[str] = ()) -> None:
    """UserError that names an argument which our network can't follow.

    Args:
        class_name: the official class of the module.
        arguments: its constructor's keyword arguments; the tables for sub-modules are looked into.
        honoured: arguments of a mapping network that the caller turns into fields of our config.
    """
    if class_name == "FullyConnectedLayer":  # as the module around it says, which is looked at itself
        return
    right = {**_RIGHT.get(class_name, {}), "resample_filter": (RESAMPLE_TAPS, tuple(RESAMPLE_TAPS))}
    for name, value in arguments.items():
        if name in _HARMLESS.split() or value is None or value == {}:
            continue
        if name in _CLASS_OF_TABLE and isinstance(value, Mapping):
            check_arguments(_CLASS_OF_TABLE[name], value, honoured)
        elif not (class_name == "MappingNetwork" and name in honoured) and value not in right.get(name, ()):
            meant = f" (only {_spelled(right[name][0])} is)" if name in right else ""
            raise UserError(f"the official {class_name} was built with {name}={_spelled(value)}: not known here{meant}")


def check_filters(tensors: Mapping[str, torch.Tensor]) -> None:
    """UserError where a stored resampling filter is another than ours: all pictures would differ."""
    own = setup_filter(RESAMPLE_TAPS)
    for name, tensor in tensors.items():
        if name.endswith("resample_filter") and not (tensor.shape == own.shape and torch.allclose(tensor, own)):
            raise UserError(f"its resample_filter is not {RESAMPLE_TAPS}, the only one known here (see {name})")


def _spelled(value: Any) -> str:
    return str(value)[:60]
