"""Tensors that don't fit a network: what is wrong with each, and which field of its config that points to."""

import re
from collections.abc import Mapping

import torch

_NAMED = 8  # how many tensors an error names

_FIELDS = (  # pattern of a tensor's name -> what decides whether it is there, and how large it is
    (r"(^|\.)mapping\.embed\.", "c_dim"),
    (r"(^|\.)mapping\.fc\d+\.", "mapping_layers, z_dim, w_dim"),
    (r"(^|\.)mapping\.w_avg$", "w_dim"),
    (r"\.noise_(strength|const)$", "use_noise of the program it comes from; img_resolution"),
    (r"\.proj_weight$", "linformer"),
    (r"\.attn\.qkv\.bias$", "qkv_bias of the program it comes from; block_type"),
    (r"\.attn\.rpb\.\d+$", "kernels, min_heads, block_type"),
    (r"\.attn\.bias_table\.\d+$", "block_type, min_heads"),
    (r"\.mlp\.fc\d\.", "mlp_ratio, channels"),
    (r"\.weight_(orig|u|v)$", "spectral_norm"),
    (r"(^|\.)b\d+\.(skip|fromrgb)\.", "architecture, channel_base, channel_max"),
    (r"(^|\.)b4\.conv\.weight$", "mbstd_channels, channel_base, channel_max"),
    (r"(^|\.)b4\.out\.", "cmap_dim, c_dim"),
    (r"(^|\.)b\d+_\d+\.", "g_dict, num_layers, start_resolution"),
    (r"(^|\.)b\d+\.", "channel_base, channel_max, img_resolution"),
    (r"(^|\.)layers\.\d+\.", "channels, start_resolution, img_resolution"),
)


def misfits(own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> str | None:
    """One line about the tensors of a file that differ from a network's own in name, shape or type; None if none do."""
    problems = {name: f"tensor {name} is missing" for name in own.keys() - given.keys()}
    problems |= {name: f"tensor {name} belongs nowhere" for name in given.keys() - own.keys()}
    for name in own.keys() & given.keys():
        if own[name].shape != given[name].shape:
            problems[name] = f"tensor {name} has shape {_shape(given[name])} instead of {_shape(own[name])}"
        elif own[name].dtype != given[name].dtype:
            problems[name] = f"tensor {name} has type {given[name].dtype} instead of {own[name].dtype}"
    if not problems:
        return None
    named = sorted(problems.items(), key=lambda item: item[1])[:_NAMED]
    more = f" and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
    fields = dict.fromkeys(filter(None, (field_of(name) for name, _ in named)))
    hint = f" (look at: {'; '.join(fields)})" if fields else ""
    return "; ".join(text for _, text in named) + more + hint


def field_of(name: str) -> str | None:
    """The fields that decide about a tensor; None for names of no built-in network."""
    return next((fields for pattern, fields in _FIELDS if re.search(pattern, name)), None)


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
