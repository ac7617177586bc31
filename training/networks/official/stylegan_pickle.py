"""Official StyleGAN2-ADA and Styleformer pickles.

Such a file calls `torch_utils.persistence._reconstruct_persistent_obj(meta)` for every module; `meta` carries Python
source, which is ignored, and the module's state, from which sizes and tensors are taken.
"""

import dataclasses
import math
from typing import Any

import torch

from dnnlib.errors import UserError
from torch_utils.files.persistence import NetworkFile, NetworkRecord
from torch_utils.files.safe_pickle import DAMAGE, Constant, Constructor, DamagedFile
from training.augment.pipe import AugmentConfig
from training.networks.official.plain import OfficialModule, json_data
from training.networks.official.recorded import check_arguments, check_filters

LINFORMER_P_MAX = 0.7  # the original uses the augmentation's p up to here together with Linformer


class PersistentModule(OfficialModule):
    """A module of a pickle that carries its source code."""

    def __init__(self, meta: Any) -> None:
        if not isinstance(meta, dict) or meta.get("type") != "class" or not isinstance(meta.get("state"), dict):
            raise ValueError("a persistent object that is no module")
        super().__init__(str(meta["class_name"]))
        self.set_state(meta["state"])

    def get(self, name: str, default: Any = None) -> Any:
        """A plain attribute, or failing that what was passed for it at construction."""
        return self.attributes.get(name, self.arguments.get(name, default))

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the constructor."""
        return self.attributes.get("_init_kwargs") or {}


CONSTRUCTORS: dict[str, Constructor | Constant] = {
    "torch_utils.persistence._reconstruct_persistent_obj": PersistentModule,
}


def content(data: dict[str, Any], source: str) -> NetworkFile:
    """The dict of an official pickle -> plain records of our kinds. Raises UserError if it can't be rebuilt."""
    networks: dict[str, NetworkRecord | None] = {}
    limit = 1.0
    try:
        for name in ("G", "D", "G_ema"):
            module = data.get(name)
            networks[name] = None if module is None else _record(module, source)
        if any(record and record.config.get("linformer") for record in networks.values()):
            limit = LINFORMER_P_MAX
        pipe = data.get("augment_pipe")
        networks["augment_pipe"] = None if pipe is None else _augment_pipe(pipe, limit)
    except DAMAGE as e:
        raise DamagedFile(f"{source} is not what official programs write: {str(e)[:120]}") from e
    if not any(networks.values()):
        raise UserError(f"{source} holds no network: no G, D or G_ema of a known class in it")
    return NetworkFile(
        networks,
        training_set_kwargs=json_data(data.get("training_set_kwargs")),
        provenance={"program": "official StyleGAN2-ADA or Styleformer"},
    )


def _record(module: Any, source: str) -> NetworkRecord:
    reader = _READERS.get(module.class_name) if isinstance(module, PersistentModule) else None
    if reader is None:
        name = module.class_name if isinstance(module, PersistentModule) else type(module).__name__
        raise UserError(f"{source}: networks of the official class {name[:60]!a} are not known here")
    try:
        return reader(module)
    except DamagedFile:
        raise
    except UserError as e:
        raise UserError(f"{source}: {e}") from e


def _generator(module: PersistentModule) -> NetworkRecord:
    """All families call their class Generator: it is Styleformer iff its synthesis has G_dict."""
    if any(part.class_name == "SynthesisInput" for part in module.walk()):
        raise UserError(
            "a StyleGAN3 generator, which is not known here: sample it with the program it comes from; "
            "calc_metrics.py --images=FOLDER measures the pictures"
        )
    _check(module, honoured=("activation", "lr_multiplier"))
    if "G_dict" in (module.arguments.get("synthesis_kwargs") or {}):
        return _styleformer(module)
    return _stylegan2(module)


def _check(module: PersistentModule, honoured: tuple[str, ...] = ()) -> None:
    """UserError where an argument of the module or one inside it means something that our networks don't compute."""
    for part in module.walk():
        check_arguments(part.class_name, part.arguments, honoured)
    check_filters(module.tensors())


def _common(module: PersistentModule) -> dict[str, Any]:
    side = module.get("img_resolution")
    return {"img_resolution": [side, side], "img_channels": module.get("img_channels"), "c_dim": module.get("c_dim")}


def _generator_common(module: PersistentModule) -> dict[str, Any]:
    mapping = module.child("mapping")
    passed_on = module.arguments.get("mapping_kwargs") or {}
    config = {"z_dim": module.get("z_dim"), "w_dim": module.get("w_dim"), "mapping_layers": mapping.get("num_layers")}
    for name in ("activation", "lr_multiplier"):
        value = mapping.get(name, passed_on.get(name))
        if value is not None:
            config[f"mapping_{name}"] = value
    return _common(module) | config


def _styleformer(module: PersistentModule) -> NetworkRecord:
    synthesis = module.child("synthesis")
    tensors = _without_constants(module.tensors())
    first = min(synthesis.modules, key=_resolution)
    tokens = tensors[f"synthesis.{first}.const"].shape[0]
    options = synthesis.arguments
    config = _generator_common(module) | {
        "g_dict": list(options["G_dict"]),
        "num_layers": list(options["num_layers"]),
        "depth": options["depth"],
        "minimum_head": options["minimum_head"],
        "linformer": bool(options.get("linformer")),
        "start_resolution": [math.isqrt(tokens)] * 2,
        "conv_clamp": synthesis.arguments.get("conv_clamp"),
    }
    # One matrix under two names: the block and its encoder layer share it.
    for name in [n for n in tensors if n.endswith(".enc.proj_weight")]:
        shared = tensors.pop(name.replace(".enc.proj_weight", ".proj_weight"), tensors[name])
        if not torch.equal(shared, tensors[name]):
            raise ValueError(f"{name} differs from the block's own projection")
    return NetworkRecord("styleformer", config, tensors)


def _stylegan2(module: PersistentModule) -> NetworkRecord:
    synthesis = module.child("synthesis")
    for block in synthesis.modules.values():
        if block.get("architecture", "skip") != "skip":
            raise UserError(
                f"official StyleGAN2 generators of architecture {block.get('architecture')!a} are not known"
            )
    config = _generator_common(module) | _widths(synthesis) | {"conv_clamp": synthesis.arguments.get("conv_clamp")}
    return NetworkRecord("stylegan2", config, _without_constants(module.tensors()))


def _discriminator(module: PersistentModule) -> NetworkRecord:
    _check(module)
    epilogue = module.child("b4")
    statistics = epilogue.modules.get("mbstd")
    config = _common(module) | _widths(module)
    config |= {
        "architecture": epilogue.get("architecture"),
        "conv_clamp": module.arguments.get("conv_clamp"),
        "mbstd_group_size": statistics.get("group_size") if statistics else 1,
        "mbstd_channels": statistics.get("num_channels") if statistics else 0,
        "cmap_dim": epilogue.get("cmap_dim") or None,
    }
    if "mapping" in module.modules:
        config["mapping_layers"] = module.child("mapping").get("num_layers")
    return NetworkRecord("stylegan2_discriminator", config, _without_constants(module.tensors()))


def _augment_pipe(module: PersistentModule, p_max: float) -> NetworkRecord:
    fields = [field.name for field in dataclasses.fields(AugmentConfig)]
    config = {name: module.get(name) for name in fields if module.get(name) is not None}
    p = module.tensors()["p"].clamp(max=p_max)
    return NetworkRecord("augment_pipe", json_data(config), {"p": p})


_READERS = {"Generator": _generator, "Discriminator": _discriminator}


def _widths(module: PersistentModule) -> dict[str, Any]:
    return {
        "channel_base": module.arguments.get("channel_base", 32768),
        "channel_max": module.arguments.get("channel_max", 512),
    }


def _without_constants(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Drops the resampling filters, which `check_filters` has found to be ours."""
    return {name: t for name, t in tensors.items() if not name.endswith("resample_filter")}


def _resolution(block: str) -> int:
    return int(block.removeprefix("b").partition("_")[0])
