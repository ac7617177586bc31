"""StyleNAT generator (Walton et al. 2022, "StyleNAT: Giving Each Head a New Perspective").

Tensor names in official files and here: `official_to_own` is the table.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from dnnlib.config import Factor, Side
from dnnlib.errors import UserError
from torch_utils.ops.upfirdn2d import setup_filter, upsample2d
from training.networks.generators.stylenat_attention import FullAttention, HeadGroup, HydraAttention, Linear
from training.networks.generators.swin_attention import WindowPairAttention
from training.networks.registry import GeneratorConfig, register
from training.networks.shared.generator import Generator, NoiseMode
from training.networks.shared.layers import RESAMPLE_TAPS, FullyConnected
from training.networks.shared.pixel_units import ValueRange, check_units, from_units

LAYERS_PER_STAGE = 2
HEAD_CHANNELS = 32  # channels per head, where min_heads doesn't ask for more heads
SWIN_WINDOW = 8
MLP_CHUNK = 8192  # tokens that the MLP takes at a time when no gradient is needed


@dataclass
class StyleNATConfig(GeneratorConfig):
    """StyleNAT: stages from the start resolution up, doubling, of two layers each.

    A stage's kernels and dilations are the Hydra partitions of its heads: the longer of its two lists counts them, a
    list of one value applies to all. The first stage always attends fully, whatever its entries say; the other block
    types have no such windows.
    """

    start_resolution: tuple[Side, Side] = (4, 4)  # (height, width) of the learned constant
    channel_multiplier: Factor = 2.0  # channels per stage: 512 four times, then 256, 128, ... times this
    channels: list[Side] | None = None  # channels per stage; None: by the rule above
    kernels: list[list[Side]] | None = None  # window sides per stage; None: 7
    dilations: list[list[Side]] | None = None  # per stage; None: [1], from side 16 on [1, side / 8]
    clip_kernels: bool = False  # shrink windows that exceed their map, rather than refuse them
    min_heads: Side = 4  # heads, at least; otherwise one per 32 channels
    mlp_ratio: Factor = 4.0  # hidden channels of the MLP, relative to the layer's
    block_type: Literal["nat", "swin", "transformer"] = "nat"  # attention: Hydra, StyleSwin's windows, full
    checkpoint: bool = False  # recompute every layer in the backward pass: less memory, more time
    output_norm: ValueRange = "imagenet"  # units of what the last layer computes; callers get [-1, 1]


@dataclass
class StageSpec:
    """Sizes of one stage."""

    index: int
    size: tuple[int, int]  # (height, width)
    channels: int
    next_channels: int | None  # of the stage that follows, None after the last
    heads: int

    @property
    def name(self) -> str:
        return f"stage {self.index} ({self.size[0]}x{self.size[1]})"


class AdaIN(nn.Module):
    """Instance normalisation, then scale and shift from the style (Huang & Belongie 2017); x [N, H, W, C]."""

    def __init__(self, w_dim: int, channels: int):
        super().__init__()
        self.style = FullyConnected(w_dim, 2 * channels)

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        gamma, beta = self.style(w)[:, None, None, :].chunk(2, dim=3)
        # The statistics of half-precision maps are taken in the style's precision.
        y = x.to(beta.dtype)
        y = y - y.mean(dim=(1, 2), keepdim=True)
        # Spelled out, because the second derivative of torch.var is less accurate in float32.
        variance = y.square().mean(dim=(1, 2), keepdim=True)
        return torch.addcmul(beta, y, gamma * (variance + 1e-5).rsqrt()).to(x.dtype)


class MLP(nn.Module):
    """Linear, GELU, linear on the last axis."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.fc1 = Linear(channels, hidden)
        self.fc2 = Linear(hidden, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            return self.fc2(F.gelu(self.fc1(x)))
        # Hidden values are several times as many as the tokens' own: never hold all of them at once.
        parts = x.flatten(0, -2).split(MLP_CHUNK)
        return torch.cat([self.fc2(F.gelu(self.fc1(part))) for part in parts]).view(x.shape)


class Layer(nn.Module):
    """x + attention(AdaIN(x)), then x + MLP(AdaIN(x)); x [N, H, W, C], one style w [N, w_dim]."""

    def __init__(self, cfg: StyleNATConfig, stage: StageSpec):
        super().__init__()
        self.norm1 = AdaIN(cfg.w_dim, stage.channels)
        self.attn = build_attention(cfg, stage)
        self.norm2 = AdaIN(cfg.w_dim, stage.channels)
        self.mlp = MLP(stage.channels, int(stage.channels * cfg.mlp_ratio))

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x, w))
        return x + self.mlp(self.norm2(x, w))


class Upsample(nn.Module):
    """To the next stage: bilinear x2, LayerNorm, linear, a share of the position embedding.
    [N, H, W, C] -> [N, 2H, 2W, C_next]."""

    columns: torch.Tensor
    rows: torch.Tensor

    def __init__(self, channels: int, out_channels: int, size: tuple[int, int]):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.reduction = Linear(channels, out_channels, bias=False)
        self.alpha = nn.Parameter(torch.zeros(1))
        half = out_channels // 2
        self.register_buffer("columns", sinusoids(2 * size[1], half)[None, :], persistent=False)
        self.register_buffer("rows", sinusoids(2 * size[0], half)[:, None], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.interpolate(x.permute(0, 3, 1, 2), scale_factor=2, mode="bilinear", align_corners=False)
        x = x.permute(0, 2, 3, 1)
        x = self.reduction(self.norm(x.to(self.alpha.dtype)).to(x.dtype))
        by_column, by_row = x.chunk(2, dim=3)
        columns, rows = ((self.alpha * embedding).to(x.dtype) for embedding in (self.columns, self.rows))
        return torch.cat([by_column + columns, by_row + rows], dim=3)


class Stage(nn.Module):
    """The layers of one resolution and the way up to the next; x [N, H, W, C], one style per layer."""

    def __init__(self, cfg: StyleNATConfig, spec: StageSpec):
        super().__init__()
        self.checkpoint = cfg.checkpoint
        self.blocks = nn.ModuleList(Layer(cfg, spec) for _ in range(LAYERS_PER_STAGE))
        self.upsample = Upsample(spec.channels, spec.next_channels, spec.size) if spec.next_channels else None

    def forward(self, x: torch.Tensor, ws: list[torch.Tensor]) -> torch.Tensor:
        for block, w in zip(self.blocks, ws):
            if self.checkpoint and torch.is_grad_enabled():
                x = checkpoint(block, x, w, use_reentrant=False)
            else:
                x = block(x, w)
        return x if self.upsample is None else self.upsample(x)


class ToRGB(nn.Module):
    """Features [N, H, W, C] -> image [N, img_channels, H, W], added to the x2 upsampled image so far."""

    resample_filter: torch.Tensor

    def __init__(self, channels: int, img_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, img_channels, 1)
        nn.init.xavier_normal_(self.conv.weight, gain=0.02)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        self.bias = nn.Parameter(torch.zeros(1, img_channels, 1, 1))
        self.register_buffer("resample_filter", setup_filter(RESAMPLE_TAPS), persistent=False)

    def forward(self, x: torch.Tensor, img: torch.Tensor | None) -> torch.Tensor:
        assert self.conv.bias is not None
        rgb = F.linear(x, self.conv.weight.flatten(1).to(x.dtype), self.conv.bias.to(x.dtype))
        y = rgb.permute(0, 3, 1, 2).to(self.bias.dtype) + self.bias
        if img is None:
            return y
        if img.shape[2:] != y.shape[2:]:
            img = upsample2d(img, self.resample_filter)
        return y + img


class LearnedInput(nn.Module):
    """The learned constant that synthesis starts from, [1, C, H, W]."""

    def __init__(self, channels: int, size: tuple[int, int]):
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, *size))


class SynthesisNetwork(nn.Module):
    """Styles ws [N, num_ws or more, w_dim] -> images [N, C, H, W]. Layer b of stage s reads style 2s + b."""

    def __init__(self, cfg: StyleNATConfig):
        super().__init__()
        stages = plan(cfg)
        self.output_norm = cfg.output_norm
        self.num_ws = LAYERS_PER_STAGE * len(stages)
        self.input = LearnedInput(stages[0].channels, stages[0].size)
        self.layers = nn.ModuleList(Stage(cfg, spec) for spec in stages)
        self.to_rgbs = nn.ModuleList(ToRGB(s.next_channels or s.channels, cfg.img_channels) for s in stages)

    def resolution_modules(self) -> list[list[nn.Module]]:
        """As Generator.resolution_modules."""
        return [[stage] for stage in self.layers]

    def forward(self, ws: torch.Tensor, noise_mode: NoiseMode = "random") -> torch.Tensor:
        """Surplus styles at the end of ws are not read. StyleNAT has no noise inputs: every `noise_mode`, which all
        generators are asked for, gives the same image."""
        styles = ws.unbind(1)
        x = self.input.input.permute(0, 2, 3, 1).expand(ws.shape[0], -1, -1, -1)
        img: torch.Tensor | None = None
        for i, (stage, to_rgb) in enumerate(zip(self.layers, self.to_rgbs)):
            x = stage(x, list(styles[LAYERS_PER_STAGE * i : LAYERS_PER_STAGE * (i + 1)]))
            img = to_rgb(x, img)
        assert img is not None
        return from_units(img, self.output_norm)


@register("stylenat", StyleNATConfig)
class StyleNATGenerator(Generator):
    """The StyleNAT generator; with `block_type=swin` it is StyleSwin's."""

    def __init__(self, cfg: StyleNATConfig):
        check_units(cfg.output_norm, cfg.img_channels, "G.output_norm")
        synthesis = SynthesisNetwork(cfg)
        super().__init__(cfg, synthesis.num_ws)
        self.synthesis = synthesis


def sinusoids(length: int, channels: int) -> torch.Tensor:
    """Embedding of the positions 1 .. length, [length, channels]: sines, then cosines, of geometrically spaced
    frequencies from 1 to 1/10000 (Vaswani et al. 2017, section 3.5)."""
    count = channels // 2
    frequencies = torch.exp(torch.arange(count) * -(math.log(10000) / max(count - 1, 1)))
    angles = torch.arange(1, length + 1)[:, None] * frequencies[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


# -- from config to sizes ---------------------------------------------------------------------------------------------


def plan(cfg: StyleNATConfig) -> list[StageSpec]:
    """The stages that a config asks for. UserError where its values don't go together."""
    sizes = _sizes(tuple(cfg.start_resolution), tuple(cfg.img_resolution))
    channels = _channels(cfg, len(sizes))
    stages = []
    for i, size in enumerate(sizes):
        heads = max(channels[i] // HEAD_CHANNELS, cfg.min_heads)
        following = channels[i + 1] if i + 1 < len(sizes) else None
        spec = StageSpec(i, size, channels[i], following, heads)
        if channels[i] % heads or channels[i] % 4:
            raise UserError(
                f"{spec.name}: {channels[i]} channels must be a multiple of 4 and of its {heads} heads: "
                "change G.channels or G.min_heads"
            )
        stages.append(spec)
    return stages


def build_attention(cfg: StyleNATConfig, stage: StageSpec) -> nn.Module:
    """The attention layer that stands in `stage`."""
    if cfg.block_type == "transformer":
        return FullAttention(stage.channels, stage.heads)
    if cfg.block_type == "swin":
        window, shift = _swin_window(stage)
        return WindowPairAttention(stage.channels, stage.heads, stage.size, window, shift)
    if stage.index == 0:
        return HydraAttention(stage.channels, [HeadGroup(stage.heads, stage.size)])
    return HydraAttention(stage.channels, hydra_groups(cfg, stage))


def hydra_groups(cfg: StyleNATConfig, stage: StageSpec) -> list[HeadGroup]:
    """The head partitions of a stage. Heads that don't divide evenly go, one each, to the last partitions."""
    side = min(stage.size)
    kernels = _entry(cfg.kernels, "kernels", cfg, stage, default=[7])
    dilations = _entry(cfg.dilations, "dilations", cfg, stage, default=[1] if side < 16 else [1, side // 8])
    count = max(len(kernels), len(dilations))
    if len(kernels) not in (1, count) or len(dilations) not in (1, count):
        raise UserError(f"{stage.name}: {len(kernels)} kernels don't go with {len(dilations)} dilations")
    if count > stage.heads:
        raise UserError(
            f"{stage.name}: {count} partitions want as many heads, but it has {stage.heads}: set G.min_heads={count}"
        )
    share, rest = divmod(stage.heads, count)
    groups = []
    for i, (kernel, dilation) in enumerate(zip(_repeat(kernels, count), _repeat(dilations, count))):
        kernel = _fitting_kernel(kernel, dilation, stage, cfg.clip_kernels)
        groups.append(HeadGroup(share + (i >= count - rest), (kernel, kernel), dilation))
    return groups


def _fitting_kernel(kernel: int, dilation: int, stage: StageSpec, clip: bool) -> int:
    side = min(stage.size)
    if kernel < 1 or dilation < 1 or kernel % 2 == 0:
        raise UserError(f"{stage.name}: kernel {kernel} with dilation {dilation}: kernels are odd, both positive")
    if kernel * dilation <= side:
        return kernel
    if not clip or dilation > side:
        raise UserError(
            f"{stage.name}: kernel {kernel} x dilation {dilation} exceeds its side: choose smaller ones, "
            "or let kernels shrink with --set G.clip_kernels=true"
        )
    return (side // dilation - 1) // 2 * 2 + 1


def _swin_window(stage: StageSpec) -> tuple[int, int]:
    """(window, shift)."""
    side = min(stage.size)
    window = side if stage.index == 0 else min(side, SWIN_WINDOW)
    if any(n % window for n in stage.size) or stage.heads % 2:
        raise UserError(
            f"{stage.name}: block_type=swin wants sides that are multiples of {window}, and an even min_heads"
        )
    return window, window // 2 if side > window else 0


def _entry(
    table: list[list[int]] | None, name: str, cfg: StyleNATConfig, stage: StageSpec, default: list[int]
) -> list[int]:
    """A stage's row of `kernels` or `dilations`."""
    if table is None:
        return default
    count = len(_sizes(tuple(cfg.start_resolution), tuple(cfg.img_resolution)))
    if len(table) != count:
        raise UserError(f"G.{name} wants {count} lists, one per stage, got {len(table)}")
    if not table[stage.index]:
        raise UserError(f"G.{name} has an empty list for {stage.name}")
    return table[stage.index]


def _repeat(values: list[int], count: int) -> list[int]:
    return values * count if len(values) == 1 else values


def _channels(cfg: StyleNATConfig, stages: int) -> list[int]:
    if cfg.channels is None:
        return [512 if i < 4 else int(512 * cfg.channel_multiplier) >> (i - 3) for i in range(stages)]
    if len(cfg.channels) != stages or min(cfg.channels) < 1:
        given = ",".join(map(str, cfg.channels))
        raise UserError(f"G.channels wants {stages} positive values, one per stage, got {given}")
    return list(cfg.channels)


def _sizes(start: tuple[int, ...], goal: tuple[int, ...]) -> list[tuple[int, int]]:
    """Map sizes from the learned constant, doubling, up to the image."""
    sizes = [(start[0], start[1])]
    while 0 < sizes[-1][0] < goal[0]:
        sizes.append((sizes[-1][0] * 2, sizes[-1][1] * 2))
    if sizes[-1] != goal:
        raise UserError(
            f"StyleNAT doubles its start resolution {start[0]}x{start[1]} and never reaches {goal[0]}x{goal[1]}: "
            "set G.start_resolution or choose another image size"
        )
    return sizes


# -- names in official files ------------------------------------------------------------------------------------------

_CONSTANTS = re.compile(r"relative_position_index$|_float_tensor$|\.kernel$|attn_mask2$")
_RENAMES: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"^style\.(\d+)\.", lambda m: f"mapping.fc{int(m[1]) - 1}."),
    (r"(blocks\.\d+)\.(qkv|proj)\.", r"\1.attn.\2."),  # StyleSwin's layers
    (r"attn\.(\d)\.relative_position_bias_table$", r"attn.bias_table.\1"),  # StyleSwin's layers
    (r"attn\.rpb$", "attn.rpb.0"),  # the 4x4 stage
    (r"attn\.rpb(\d)$", r"attn.rpb.\1"),  # the old form's halves
]


def official_to_own(name: str) -> str | None:
    """Tensor name in an official StyleNAT (old or new form) or StyleSwin generator -> its name in our state_dict.

    None for a constant that we compute: position indices, blur kernels, masks, the embedding's dummy.

    | official                                | ours                                    |
    |-----------------------------------------|-----------------------------------------|
    | style.1 ... style.8                     | mapping.fc0 ... mapping.fc7             |
    | layers.0.blocks.B.attn.rpb (4x4)        | synthesis.layers.0.blocks.B.attn.rpb.0  |
    | attn.rpb0, attn.rpb1 (old form)         | attn.rpb.0, attn.rpb.1                  |
    | blocks.B.{qkv,proj} (swin)              | blocks.B.attn.{qkv,proj}                |
    | attn.I.relative_position_bias_table     | attn.bias_table.I                       |
    | all the rest                            | `synthesis.` + the same                 |

    `mapping.w_avg` has no counterpart: official files don't keep an average style.
    """
    if _CONSTANTS.search(name):
        return None
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name if name.startswith("mapping.") else f"synthesis.{name}"
