"""Official StyleNAT (and StyleSwin) checkpoints, the files of `torch.save` with tensors by name.

New form: {args, state_dicts: {g, d, g_ema}, ...}; old form: {g, d, g_ema, args, ...}, in which every layer above the
first stage is stored as two halves of the heads. Sizes come from the tensors, the rest from `args`.
"""

from collections.abc import Callable
from typing import Any

import torch

from dnnlib.errors import UserError
from torch_utils.files.persistence import NetworkFile, NetworkRecord
from torch_utils.files.safe_pickle import DAMAGE, DamagedFile
from torch_utils.files.torch_files import PlainNamespace
from training.networks.discriminators.wavelet import stored_official_name
from training.networks.generators.stylenat import official_to_own
from training.networks.official.foreign import foreign_checkpoint
from training.networks.official.plain import count_modules, json_data
from training.networks.official.stylenat_options import DISCRIMINATOR, GENERATOR, LR_MLP, check_options
from training.networks.shared.mapping import MappingNetwork

W_AVG_SAMPLES = 10_000  # official files keep no average style: it is estimated from so many latents of seed 0

Tensors = dict[str, torch.Tensor]


def content(data: Any, source: str) -> NetworkFile:
    """The dict of a checkpoint -> plain records of our kinds. Raises UserError if it can't be rebuilt."""
    try:
        options = _options(data)
        states = data.get("state_dicts", data)
        program = foreign_checkpoint(_tensors(states.get("g_ema") or states.get("g") or {}))
        if program is not None:
            raise UserError(f"{source} is {program}")
        networks: dict[str, NetworkRecord | None] = {}
        for name, key, record in (("G", "g", _generator), ("D", "d", _discriminator), ("G_ema", "g_ema", _generator)):
            networks[name] = record(_tensors(states[key]), options, source) if states.get(key) else None
        trained_on = options.get("dataset")
    except DAMAGE as e:
        raise DamagedFile(f"{source} is not what the official StyleNAT writes: {str(e)[:120]}") from e
    if not any(networks.values()):
        raise UserError(f"{source} holds no network: no g, d or g_ema in it")
    return NetworkFile(
        networks,
        training_set_kwargs=json_data(trained_on),
        provenance={"program": "official StyleNAT"},
    )


def _options(data: Any) -> dict[str, Any]:
    """`args` as nested dicts; empty where the file has none."""
    args = json_data(data.get("args")) or {}
    return args if isinstance(args, dict) else {}


def _given(options: dict[str, Any], network: str) -> dict[str, Any]:
    """The options of a network."""
    runs = options.get("runs") or {}
    return runs.get(network) or {}


def _tensors(state: Any) -> Tensors:
    if isinstance(state, PlainNamespace):
        state = state.attributes
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def _generator(official: Tensors, options: dict[str, Any], source: str) -> NetworkRecord:
    given = _given(options, "generator")
    check_options(given, GENERATOR, source)
    tensors = _renamed(official, official_to_own)
    stages = count_modules(official, "layers.")
    start = official["input.input"].shape[2:]
    hidden = [official[f"layers.{s}.blocks.0.mlp.fc1.weight"].shape for s in range(stages)]
    layers = count_modules(official, "style.", first=1)
    w_dim, z_dim = official["style.1.weight"].shape
    config: dict[str, Any] = {
        "img_resolution": [side << (stages - 1) for side in start],
        "img_channels": official["to_rgbs.0.conv.weight"].shape[0],
        "z_dim": z_dim,
        "w_dim": w_dim,
        "mapping_layers": layers,
        "mapping_lr_multiplier": given.get("lr_mlp") or LR_MLP,
        "seed_rule": "torch",
        "start_resolution": list(start),
        "channels": [shape[1] for shape in hidden],
        "mlp_ratio": hidden[0][0] / hidden[0][1],
        "block_type": _block_type(official, given, source),
        "output_norm": "imagenet",
    }
    heads = _heads(official, stages)
    if given.get("min_heads") or heads:
        config["min_heads"] = given.get("min_heads") or min(heads)
    if config["block_type"] == "nat":
        config |= _windows(official, given, stages, source)
    tensors["mapping.w_avg"] = _average_style(tensors, config)
    return NetworkRecord("stylenat", config, tensors)


def _discriminator(official: Tensors, options: dict[str, Any], source: str) -> NetworkRecord:
    check_options(_given(options, "discriminator"), DISCRIMINATOR, source)
    spectral = "final_conv.0.weight_orig" in official
    weight = "weight_orig" if spectral else "weight"
    scales = count_modules(official, "from_rgbs.")
    widths = [official[f"from_rgbs.{i}.conv.0.{weight}"].shape[0] for i in range(scales)]
    # The last linear layer reads the last map whole; scales halve from half the image's side down to it.
    area = official[f"final_linear.0.{weight}"].shape[1] // widths[-1]
    side = round(area**0.5) << scales
    config = {
        "img_resolution": [side, side],
        "img_channels": official[f"from_rgbs.0.conv.0.{weight}"].shape[1] // 4,
        "channels": widths,
        "spectral_norm": spectral,
        "input_norm": "imagenet",
    }
    return NetworkRecord("wavelet_discriminator", config, _renamed(official, stored_official_name))


def _renamed(official: Tensors, rename: Callable[[str], str | None]) -> Tensors:
    own = ((rename(name), tensor) for name, tensor in official.items())
    return {name: tensor for name, tensor in own if name is not None}


def _block_type(official: Tensors, given: dict[str, Any], source: str) -> str:
    """From the names of the first layer's tensors, which `args` may not contradict."""
    if "layers.0.blocks.0.attn.rpb" in official:
        found = "nat"
    elif "layers.0.blocks.0.attn.0.relative_position_bias_table" in official:
        found = "swin"
    else:
        raise UserError(
            f"{source}: its layers have no bias tables, as with block_type=transformer, whose original attends across "
            "the images of a batch: that is not known here (ours attends within each image)"
        )
    if given.get("block_type") not in (None, found):
        raise UserError(f"{source}: args say block_type={given['block_type']}, but its tensors are those of {found}")
    return found


def _bias_tables(official: Tensors, stage: int) -> list[torch.Tensor]:
    """The bias tables of a stage's first layer, one per head partition, in either form."""
    prefix = f"layers.{stage}.blocks.0.attn.rpb"
    if prefix in official:
        return [official[prefix]]
    found = [official.get(f"{prefix}.{i}", official.get(f"{prefix}{i}")) for i in range(_MAX_PARTITIONS)]
    return [table for table in found if table is not None]


_MAX_PARTITIONS = 64


def _heads(official: Tensors, stages: int) -> list[int]:
    """Heads per stage, as far as bias tables show them."""
    heads = [sum(table.shape[0] for table in _bias_tables(official, s)) for s in range(stages)]
    for s in range(stages):
        table = official.get(f"layers.{s}.blocks.0.attn.0.relative_position_bias_table")
        heads[s] += 0 if table is None else 2 * table.shape[1]
    return [count for count in heads if count]


def _windows(official: Tensors, given: dict[str, Any], stages: int, source: str) -> dict[str, Any]:
    """Kernels and dilations per stage. Without `args`, kernels follow from the tables, dilations from known presets."""
    tables = [_bias_tables(official, s) for s in range(stages)]
    counts = [len(found) for found in tables]
    kernels = [[(table.shape[1] + 1) // 2 for table in found] for found in tables]
    kernels[0] = [3]  # the first stage attends fully
    dilations = given.get("dilations") or _known_dilations(kernels, source)
    # The old form halves the heads even where both halves have one dilation.
    spread = [row * count if len(row) == 1 else row for row, count in zip(dilations, counts)]
    return {"kernels": kernels, "dilations": spread}


def _known_dilations(kernels: list[list[int]], source: str) -> list[list[int]]:
    """Dilations of the paper's models (7x7 windows, 256 px and more), told apart by their counts of partitions."""
    stages = range(len(kernels))
    ffhq = [[1] if s < 2 else [1, 2 ** (s - 1)] for s in stages]
    church = [[1] if s < 2 else [2**i for i in range(s)] for s in stages]
    if len(kernels) >= 7 and all(kernel == 7 for row in kernels[1:] for kernel in row):
        for rows in (ffhq, church):
            # A row of one value may stand for two equal halves (old form).
            if all(len(found) in (len(row), 2 if len(row) == 1 else 0) for row, found in zip(rows, kernels)):
                return rows
    raise UserError(f"{source} has no args, and its windows are of no model in the paper: the dilations are unknown")


@torch.no_grad()
def _average_style(tensors: Tensors, config: dict[str, Any]) -> torch.Tensor:
    layers, lr_multiplier = config["mapping_layers"], config["mapping_lr_multiplier"]
    mapping = MappingNetwork(config["z_dim"], 0, config["w_dim"], None, layers, lr_multiplier)
    mapping.load_state_dict({n.removeprefix("mapping."): t for n, t in tensors.items() if n.startswith("mapping.fc")})
    z = torch.randn(W_AVG_SAMPLES, config["z_dim"], generator=torch.Generator().manual_seed(0))
    return mapping(z).mean(dim=0)
