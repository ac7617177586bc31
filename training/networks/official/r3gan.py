"""Official R3GAN pickles: dict(G, D, G_ema, ...) of modules that are pickled whole, by the names of their classes.

The names are stand-ins for plain data here. Sizes come from the tensors.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

import torch

from dnnlib.errors import UserError
from torch_utils.files.persistence import NetworkFile, NetworkRecord
from torch_utils.files.safe_pickle import DAMAGE, Constant, Constructor, DamagedFile
from torch_utils.ops.upfirdn2d import setup_filter
from training.networks.official.plain import OfficialModule, count_modules, json_data
from training.networks.shared.layers import RESAMPLE_TAPS

Tensors = dict[str, torch.Tensor]


class PickledModule(OfficialModule):
    """A module of an R3GAN file."""

    def __init__(self, class_name: str, *arguments: Any) -> None:
        super().__init__(class_name)


_CLASSES = (
    "training.networks.Generator",
    "training.networks.Discriminator",
    "R3GAN.Networks.Generator",
    "R3GAN.Networks.Discriminator",
    "R3GAN.Networks.GeneratorStage",
    "R3GAN.Networks.DiscriminatorStage",
    "R3GAN.Networks.GenerativeBasis",
    "R3GAN.Networks.DiscriminativeBasis",
    "R3GAN.Networks.ResidualBlock",
    "R3GAN.Networks.UpsampleLayer",
    "R3GAN.Networks.DownsampleLayer",
    "R3GAN.Networks.Convolution",
    "R3GAN.FusedOperators.BiasedActivationCUDA",
    "R3GAN.FusedOperators.BiasedActivationReference",
    "R3GAN.Resamplers.InterpolativeUpsamplerCUDA",
    "R3GAN.Resamplers.InterpolativeUpsamplerReference",
    "R3GAN.Resamplers.InterpolativeDownsamplerCUDA",
    "R3GAN.Resamplers.InterpolativeDownsamplerReference",
    "torch.nn.modules.container.ModuleList",
    "torch.nn.modules.linear.Linear",
    "torch.nn.modules.conv.Conv2d",
)
CONSTRUCTORS: dict[str, Constructor | Constant] = {name: functools.partial(PickledModule, name) for name in _CLASSES}


def is_content(data: dict[str, Any]) -> bool:
    """Whether the dict of a pickle is that of an R3GAN file."""
    return any(isinstance(data.get(name), PickledModule) for name in ("G", "D", "G_ema"))


def content(data: dict[str, Any], source: str) -> NetworkFile:
    """The dict of an R3GAN pickle -> plain records of our kinds. Raises UserError if it can't be rebuilt."""
    networks: dict[str, NetworkRecord | None] = {}
    try:
        for name, record in (("G", _generator), ("D", _discriminator), ("G_ema", _generator)):
            module = data.get(name)
            networks[name] = None if module is None else record(module, source)
        seen = data.get("cur_nimg")
        return NetworkFile(
            networks,
            training_set_kwargs=json_data(data.get("training_set_kwargs")),
            provenance={"program": "official R3GAN"} | ({"kimg": seen / 1000} if seen is not None else {}),
        )
    except DAMAGE as e:
        raise DamagedFile(f"{source} is not what the official R3GAN writes: {str(e)[:120]}") from e


def _generator(module: PickledModule, source: str) -> NetworkRecord:
    official = module.child("Model").tensors()
    stages, config = _sizes(official, source, lowest_first=True)
    basis = official["MainLayers.0.Layers.0.Basis"]
    style = official["MainLayers.0.Layers.0.LinearLayer.weight"].shape[1]
    label_dim, c_dim = _label_sizes(official)
    config |= {
        "img_resolution": [side << (stages - 1) for side in basis.shape[1:]],
        "img_channels": official["AggregationLayer.Layer.weight"].shape[0],
        "c_dim": c_dim,
        "z_dim": style - label_dim,
    }
    if c_dim:
        config["label_dim"] = label_dim
    return NetworkRecord("r3gan", config, _renamed(official, own_generator_name))


def _discriminator(module: PickledModule, source: str) -> NetworkRecord:
    official = module.child("Model").tensors()
    stages, config = _sizes(official, source, lowest_first=False)
    end = f"MainLayers.{stages - 1}.Layers.{config['blocks'][0]}"
    basis = official[f"{end}.Basis.weight"]
    label_dim, c_dim = _label_sizes(official)
    config |= {
        "img_resolution": [side << (stages - 1) for side in basis.shape[2:]],
        "img_channels": official["ExtractionLayer.Layer.weight"].shape[1],
        "c_dim": c_dim,
    }
    if c_dim:
        config["label_dim"] = label_dim
    rename = functools.partial(own_discriminator_name, stages=stages, last_blocks=config["blocks"][0])
    return NetworkRecord("r3gan_discriminator", config, _renamed(official, rename))


def own_generator_name(name: str) -> str | None:
    """Our name of a tensor of the official generator's `Model`; None for resampling filters."""
    known = {
        "AggregationLayer.Layer.weight": "synthesis.to_rgb.weight",
        "EmbeddingLayer.weight": "mapping.embed.weight",
        "MainLayers.0.Layers.0.Basis": "synthesis.basis.basis",
        "MainLayers.0.Layers.0.LinearLayer.weight": "synthesis.basis.linear.weight",
    }
    if name in known:
        return known[name]
    stage, layer, rest = _place(name)
    return _in_stage(f"synthesis.stages.{stage}", layer - 1, rest)  # the layer before the blocks makes their input


def own_discriminator_name(name: str, stages: int, last_blocks: int) -> str | None:
    """The same for the official discriminator, whose stages start at the highest resolution; `last_blocks` is the
    number of blocks in its last one."""
    end = f"MainLayers.{stages - 1}.Layers.{last_blocks}"
    known = {
        "ExtractionLayer.Layer.weight": "from_rgb.weight",
        "EmbeddingLayer.weight": "embed.weight",
        f"{end}.Basis.weight": "basis.basis",
        f"{end}.LinearLayer.weight": "basis.linear.weight",
    }
    if name in known:
        return known[name]
    stage, layer, rest = _place(name)
    return _in_stage(f"stages.{stages - 1 - stage}", layer, rest)


def _place(name: str) -> tuple[int, int, str]:
    """Stage, layer and the rest of an official name."""
    match = re.fullmatch(r"MainLayers\.(\d+)\.Layers\.(\d+)\.(.*)", name)
    if match is None:
        raise ValueError(f"tensor {name} belongs nowhere")
    return int(match[1]), int(match[2]), match[3]


def _in_stage(stage: str, block: int, rest: str) -> str | None:
    if rest == "Resampler.Kernel":
        return None
    if rest == "LinearLayer.Layer.weight":
        return f"{stage}.change.weight"
    rest = re.sub(r"^LinearLayer(\d)\.Layer\.weight$", r"conv\1.weight", rest)
    rest = re.sub(r"^NonLinearity(\d)\.Bias$", r"bias\1", rest)
    return f"{stage}.blocks.{block}.{rest}"


def _renamed(official: Tensors, rename: Callable[[str], str | None]) -> Tensors:
    own = ((rename(name), tensor) for name, tensor in official.items())
    return {name: tensor for name, tensor in own if name is not None}


def _sizes(official: Tensors, source: str, lowest_first: bool) -> tuple[int, dict[str, Any]]:
    """How many stages there are, and what the config says of them, from the lowest up."""
    kernel = setup_filter(RESAMPLE_TAPS)
    if any(name.endswith("Resampler.Kernel") and not _is_close(t, kernel) for name, t in official.items()):
        raise UserError(f"{source}: R3GAN networks with another resampling filter than [1, 3, 3, 1] are not known here")
    stages = count_modules(official, "MainLayers.")
    order = range(stages) if lowest_first else reversed(range(stages))
    blocks = [_block_weights(official, s) for s in order]
    inner, per_group, kernel_size, _ = blocks[0][0][1].shape
    return stages, {
        "widths": [found[0][0].shape[1] for found in blocks],
        "blocks": [len(found) for found in blocks],
        "groups": [found[0][1].shape[0] // found[0][1].shape[1] for found in blocks],
        "expansion": inner // blocks[0][0][0].shape[1],
        "kernel_size": kernel_size,
    }


def _is_close(kernel: torch.Tensor, expected: torch.Tensor) -> bool:
    return kernel.shape == expected.shape and torch.allclose(kernel, expected, atol=1e-6)


def _block_weights(official: Tensors, stage: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The first two convolutions of each residual block of a stage."""
    first = re.compile(rf"MainLayers\.{stage}\.Layers\.\d+\.LinearLayer1\.Layer\.weight")
    names = [name for name in official if first.fullmatch(name)]
    return [(official[name], official[name.replace("LinearLayer1", "LinearLayer2")]) for name in names]


def _label_sizes(official: Tensors) -> tuple[int, int]:
    """(width of the label's embedding, classes); (0, 0) without labels."""
    weight = official.get("EmbeddingLayer.weight")
    return (0, 0) if weight is None else (weight.shape[0], weight.shape[1])
