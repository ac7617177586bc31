"""Official GAT checkpoints, files of `torch.save`: dict(generator, discriminator, ema: tensors by name; args, ...).

Sizes come from the tensors, not from `args`.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import torch

from torch_utils.files.persistence import NetworkFile, NetworkRecord
from torch_utils.files.safe_pickle import DAMAGE, DamagedFile
from training.networks.official.plain import count_modules, json_data
from training.networks.shared.gat import LEVELS

Tensors = dict[str, torch.Tensor]
_LATENT_CHANNELS = 4
# The space of the published networks. Their files don't say which autoencoder it was, nor where one lies.
_STABLE_DIFFUSION = {"kind": "latents", "scale": 0.18215, "shift": 0.0, "factor": 8}
_COMPUTED = ("pos_embed", "feat_rope.", "x_embedder.")  # constants, and the generator's layer that is used times 0


def is_content(data: Any) -> bool:
    """Whether the object in a `.pt` is that of a GAT checkpoint."""
    return isinstance(data, dict) and isinstance(data.get("generator", data.get("ema")), dict)


def content(data: Any, source: str) -> NetworkFile:
    """The dict of a checkpoint -> plain records of our kinds. Raises UserError if it can't be rebuilt."""
    networks: dict[str, NetworkRecord | None] = {}
    parts: tuple[tuple[str, str, Callable[[Tensors], NetworkRecord]], ...] = (
        ("G", "generator", _generator),
        ("D", "discriminator", _discriminator),
        ("G_ema", "ema", _generator),
    )
    try:
        for name, key, record in parts:
            state = data.get(key)
            networks[name] = record(dict(state)) if state else None
        settings = {"args": json_data(data.get("args")), "steps": json_data(data.get("steps"))}
    except DAMAGE as e:
        raise DamagedFile(f"{source} is not what the official GAT writes: {str(e)[:120]}") from e
    return NetworkFile(networks, provenance={"program": "official GAT"} | settings)


def _generator(official: Tensors) -> NetworkRecord:
    patch = official["x_embedder.proj.weight"].shape[2]
    w_dim = official["latent_embedder.0.weight"].shape[0]
    classes, z_dim = official["y_embedder.embedding_table.weight"].shape
    config = _sizes(official, patch) | {
        "img_channels": official["final_layers.0.linear.bias"].shape[0] // patch**2,
        "c_dim": classes if classes > 1 else 0,
        "z_dim": z_dim,
        "w_dim": w_dim,
        "mapping_layers": sum(f"latent_embedder.{2 * i}.weight" in official for i in range(len(official))),
    }
    if config["img_channels"] == _LATENT_CHANNELS:
        config["space"] = dict(_STABLE_DIFFUSION)
    return NetworkRecord("gat", config, _renamed(official, own_generator_name))


def _discriminator(official: Tensors) -> NetworkRecord:
    kernel = official["x_embedder.proj.weight"]
    classes, label_dim = official["y_embedder.embedding_table.weight"].shape
    config = _sizes(official, kernel.shape[2]) | {
        "img_channels": kernel.shape[1] // LEVELS,
        "c_dim": classes if classes > 1 else 0,
        "label_dim": label_dim,
    }
    if "proj.4.weight" in official:
        config |= dict(zip(("feature_dim", "feature_hidden"), official["proj.4.weight"].shape))
    return NetworkRecord("gat_discriminator", config, _renamed(official, own_discriminator_name))


def _sizes(official: Tensors, patch: int) -> dict[str, Any]:
    """What the configs of both networks say. The published program has square grids only."""
    tokens, width = official["pos_embed"].shape[1:]
    side = math.isqrt(tokens) * patch
    return {
        "img_resolution": [side, side],
        "patch": patch,
        "depth": count_modules(official, "blocks."),
        "width": width,
        "heads": width // official["feat_rope.freqs_cos"].shape[1],
    }


def own_generator_name(name: str) -> str | None:
    """Our name of an official generator's tensor; None for constants and for what has no effect."""
    if name.startswith(_COMPUTED):
        return None
    if name in ("w_avg", "y_embedder.embedding_table.weight"):
        return "mapping.w_avg" if name == "w_avg" else "mapping.embed.weight"
    if name.startswith("latent_embedder."):
        return re.sub(r"^latent_embedder\.(\d+)", lambda m: f"mapping.layers.{int(m[1]) // 2}", name)
    name = name.replace("adaLN_modulation.1.", "modulation.")
    return "synthesis." + re.sub(r"^final_layers\.", "outputs.", name)


def own_discriminator_name(name: str) -> str | None:
    """The same for the official discriminator."""
    if name.startswith(_COMPUTED) and not name.startswith("x_embedder."):
        return None
    for pattern, own in (
        (r"x_embedder\.proj\.", "patch_embed."),
        (r"y_embedder\.embedding_table\.", "embed."),
        (r"y_embedder\.latent_embedder\.0\.", "embed_fc0."),
        (r"y_embedder\.latent_embedder\.2\.", "embed_fc1."),
        (r"final_layer\.0\.", "norm."),
        (r"final_layer\.1\.", "project."),
        (r"proj\.0\.", "feature_head.fc0."),
        (r"proj\.2\.", "feature_head.fc1."),
        (r"proj\.4\.", "feature_head.fc2."),
        (r"(blocks\.\d+)\.ls_attn$", r"\1.scale1"),
        (r"(blocks\.\d+)\.ls_mlp$", r"\1.scale2"),
    ):
        if re.match(pattern, name):
            return re.sub("^" + pattern, own, name)
    return name


def _renamed(official: Tensors, rename: Callable[[str], str | None]) -> Tensors:
    own = ((rename(name), tensor) for name, tensor in official.items())
    # The kernel of a patch convolution is the matrix of a linear layer here.
    return {name: t.flatten(1) if name == "patch_embed.weight" else t for name, t in own if name is not None}
