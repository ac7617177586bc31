"""Styleformer and Styleformer-L generators (Park & Kim, CVPR 2022, "Styleformer: Transformer based Generative
Adversarial Networks with Style Vector")."""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

from dnnlib.config import Layers, Side, Weight
from dnnlib.errors import UserError
from torch_utils.ops.attention import attention
from torch_utils.ops.bias_act import bias_act
from torch_utils.ops.upfirdn2d import setup_filter, upsample2d
from training.networks.registry import GeneratorConfig, register
from training.networks.shared.generator import Generator, NoiseMode
from training.networks.shared.layers import RESAMPLE_TAPS, FullyConnected

LINFORMER_TOKENS = 256  # keys and values that remain after the projection
LINFORMER_FROM = 32 * 32  # maps with at least so many tokens are projected


@dataclass
class StyleformerConfig(GeneratorConfig):
    """Styleformer: encoder layers and hidden size per resolution, from the start resolution up, doubling."""

    g_dict: list[Side] = field(default_factory=lambda: [256, 64, 16])  # hidden size per resolution
    num_layers: list[Layers] = field(default_factory=lambda: [1, 2, 2])  # encoder layers per resolution
    depth: Side = 32  # channels per attention head
    minimum_head: Side = 1  # heads, at least
    linformer: bool = False  # project keys and values to 256 tokens from 32x32 on
    start_resolution: tuple[Side, Side] = (8, 8)  # (height, width) of the learned constant
    conv_clamp: Weight = 256  # encoder outputs are clamped to +- this


@dataclass
class EncoderSpec:
    """Sizes of one encoder layer."""

    w_dim: int
    in_channels: int
    out_channels: int
    size: tuple[int, int]  # (height, width) of the token map
    heads: int
    linformer: bool
    clamp: float

    @property
    def tokens(self) -> int:
        return self.size[0] * self.size[1]


class EncoderLayer(nn.Module):
    """One style-modulated self-attention layer (paper, section 3.2 and figure 2); tokens [N, L, C] -> [N, L, C_out]."""

    noise_const: torch.Tensor

    def __init__(self, spec: EncoderSpec):
        super().__init__()
        c, c_out = spec.in_channels, spec.out_channels
        self.spec = spec
        self.affine1 = FullyConnected(spec.w_dim, 2 * c, bias_init=1)
        self.q_weight = _uniform(c, c)
        self.k_weight = _uniform(c, c)
        self.v_weight = _uniform(c, c)
        self.w_weight = _uniform(c_out, c)  # linear projection after attention
        self.u_weight = _uniform(c_out, c)  # modified residual connection
        self.proj_weight = _uniform(LINFORMER_TOKENS, spec.tokens) if spec.linformer else None
        self.bias = nn.Parameter(torch.zeros(c_out))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", torch.randn(spec.tokens, 1))

    def forward(self, x: torch.Tensor, w: torch.Tensor, noise_mode: NoiseMode = "random") -> torch.Tensor:
        """x [N, L, C], w [N, w_dim]."""
        s1, s2 = self.affine1(w).chunk(2, dim=1)
        q, k, v = self.qkv(x, s1, s2)
        out = _modulated_linear(self._attend(q, k, v), self.w_weight, s2, self._noise(x, noise_mode))
        out = _modulated_linear(v, self.u_weight, s2, out)
        return bias_act(out, self.bias.to(x.dtype), dim=2, act="lrelu", gain=1, clamp=self.spec.clamp)

    def qkv(
        self, x: torch.Tensor, s1: torch.Tensor, s2: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pre-layer normalisation, demodulated projections, and the value's own style; each [N, L, C]."""
        y = F.layer_norm(_styled(x, s1), [x.shape[2]], eps=1e-5)
        weight = torch.cat([self.q_weight, self.k_weight, self.v_weight])
        of_q, of_k, of_v = _demodulation(weight, s1).chunk(3, dim=1)
        # The value's style goes together with its demodulation: one pass over the tokens instead of two.
        scale = torch.cat([of_q, of_k, of_v * s2], dim=1)
        q, k, v = _styled(F.linear(y, weight.to(y.dtype)), scale).chunk(3, dim=2)
        return q, k, v

    def _attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if self.proj_weight is not None:
            proj = self.proj_weight.to(k.dtype)
            k, v = proj @ k, proj @ v
        q, k, v = (self._split_heads(t) for t in (q, k, v))
        return attention(q, k, v).transpose(1, 2).flatten(2)

    def _split_heads(self, t: torch.Tensor) -> torch.Tensor:
        """[N, L, C] -> [N, heads, L, C / heads]."""
        return t.unflatten(2, (self.spec.heads, -1)).transpose(1, 2)

    def _noise(self, x: torch.Tensor, noise_mode: NoiseMode) -> torch.Tensor | None:
        """What is added to every channel, [N or 1, L, 1]."""
        if noise_mode == "none":
            return None
        if noise_mode == "const":
            return (self.noise_const * self.noise_strength).to(x.dtype)
        return torch.randn([x.shape[0], self.spec.tokens, 1], device=x.device, dtype=x.dtype) * self.noise_strength


class ToRGB(nn.Module):
    """Modulated and demodulated 1x1 projection of tokens [N, L, C] to image channels [N, L, channels]."""

    def __init__(self, w_dim: int, in_channels: int, img_channels: int):
        super().__init__()
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1)
        self.weight = _uniform(img_channels, in_channels)
        self.bias = nn.Parameter(torch.zeros(img_channels))

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        s = self.affine(w)
        return _modulated_linear(_styled(x, s), self.weight, s).to(self.bias.dtype) + self.bias


class EncoderBlock(nn.Module):
    """An encoder layer with what may stand around it: the constant, the position embedding, ToRGB."""

    def __init__(self, spec: EncoderSpec, img_channels: int, is_start: bool, is_first: bool, is_last: bool):
        super().__init__()
        self.const = nn.Parameter(torch.randn(spec.tokens, spec.in_channels)) if is_start else None
        self.pos_embedding = nn.Parameter(torch.zeros(1, spec.tokens, spec.in_channels)) if is_first else None
        self.enc = EncoderLayer(spec)
        self.torgb = ToRGB(spec.w_dim, spec.out_channels, img_channels) if is_last else None

    def forward(self, x: torch.Tensor, w: torch.Tensor, noise_mode: NoiseMode) -> torch.Tensor:
        """Tokens [N, L, C] -> [N, L, C_out]."""
        if self.pos_embedding is not None:
            x = x + self.pos_embedding.to(x.dtype)
        return self.enc(x, w, noise_mode)


class SynthesisNetwork(nn.Module):
    """Styles ws [N, num_ws or more, w_dim] -> images [N, C, H, W]; blocks are named `b{height}_{index}`."""

    resample_filter: torch.Tensor

    def __init__(self, cfg: StyleformerConfig):
        super().__init__()
        _check(cfg)
        self.num_layers = list(cfg.num_layers)
        self.sizes = [_doubled(cfg.start_resolution, i) for i in range(len(cfg.g_dict))]
        self.num_ws = sum(cfg.num_layers) + 1
        for i, (size, channels) in enumerate(zip(self.sizes, cfg.g_dict)):
            following = cfg.g_dict[min(i + 1, len(cfg.g_dict) - 1)]
            for j in range(cfg.num_layers[i]):
                last = j == cfg.num_layers[i] - 1
                spec = EncoderSpec(
                    w_dim=cfg.w_dim,
                    in_channels=channels,
                    out_channels=following if last else channels,
                    size=size,
                    heads=max(cfg.minimum_head, channels // cfg.depth),
                    linformer=cfg.linformer and size[0] * size[1] >= LINFORMER_FROM,
                    clamp=cfg.conv_clamp,
                )
                block = EncoderBlock(spec, cfg.img_channels, is_start=i + j == 0, is_first=j == 0, is_last=last)
                self.add_module(f"b{size[0]}_{j}", block)
        self.register_buffer("resample_filter", setup_filter(RESAMPLE_TAPS), persistent=False)

    def blocks(self, stage: int) -> list[EncoderBlock]:
        """The encoder blocks of one resolution, in order."""
        height = self.sizes[stage][0]
        return [self.get_submodule(f"b{height}_{j}") for j in range(self.num_layers[stage])]  # type: ignore[misc]

    def resolution_modules(self) -> list[list[nn.Module]]:
        """As Generator.resolution_modules."""
        stages = [self.blocks(i) for i in range(len(self.sizes))]
        return [[*(b.enc for b in blocks), *(b.torgb for b in blocks if b.torgb is not None)] for blocks in stages]

    def forward(self, ws: torch.Tensor, noise_mode: NoiseMode = "random") -> torch.Tensor:
        """Surplus styles at the end of ws are ignored. Images float32 [N, C, H, W]."""
        return self.features_and_image(ws, noise_mode)[1]

    def features_and_image(self, ws: torch.Tensor, noise_mode: NoiseMode) -> tuple[torch.Tensor, torch.Tensor]:
        """What the last layer leaves [N, C, H, W], which Styleformer-C continues from, and the image."""
        styles = iter(ws.unbind(1))
        w = next(styles)
        const = self.blocks(0)[0].const
        assert const is not None
        x = const.expand(ws.shape[0], -1, -1)
        img: torch.Tensor | None = None
        for stage, size in enumerate(self.sizes):
            if stage:
                x = self._upsampled_tokens(x, self.sizes[stage - 1])
            for block in self.blocks(stage):
                x = block(x, w, noise_mode)
                w = next(styles)
            assert block.torgb is not None
            rgb = _to_map(block.torgb(x, w), size)
            img = rgb if img is None else upsample2d(img, self.resample_filter) + rgb
        assert img is not None
        return _to_map(x, self.sizes[-1]), img

    def _upsampled_tokens(self, x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return upsample2d(_to_map(x, size), self.resample_filter).flatten(2).transpose(1, 2)


@register("styleformer", StyleformerConfig)
class StyleformerGenerator(Generator):
    """The Styleformer generator; `linformer=True` makes it Styleformer-L."""

    def __init__(self, cfg: StyleformerConfig):
        synthesis = SynthesisNetwork(cfg)
        super().__init__(cfg, synthesis.num_ws)
        self.synthesis = synthesis
        # The original makes a style per layer and one per resolution, and reads none of those after layers + 1. Its
        # path length is a mean over all of them, and its style mixing may switch behind what is read.
        self.path_length_styles = sum(cfg.num_layers) + len(cfg.num_layers)


def _uniform(rows: int, columns: int) -> nn.Parameter:
    bound = 1 / math.sqrt(columns)
    return nn.Parameter(torch.empty(rows, columns).uniform_(-bound, bound))


def _modulated_linear(
    x: torch.Tensor,  # [N, L, I], already carrying the style
    weight: torch.Tensor,  # [O, I]
    style: torch.Tensor,  # [N, I]
    addend: torch.Tensor | None = None,  # broadcasts to [N, L, O]
) -> torch.Tensor:
    """Demodulated linear map of x, plus `addend`: [N, L, O]."""
    y, demodulation = F.linear(x, weight.to(x.dtype)), _demodulation(weight, style)
    if addend is None:
        return _styled(y, demodulation)
    return torch.addcmul(addend, y, demodulation.to(x.dtype)[:, None, :])


def _demodulation(weight: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    """One over the norm of each styled weight row: weight [O, I], style [N, I] -> [N, O] (Karras et al. 2020,
    "Analyzing and Improving the Image Quality of StyleGAN", section 2.2)."""
    return (style.square() @ weight.square().t() + 1e-8).rsqrt()


def _styled(x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    """x [N, L, C] times style [N, C], in x's precision."""
    return x * style.to(x.dtype)[:, None, :]


def _to_map(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Tokens [N, H*W, C] -> [N, C, H, W]."""
    return x.transpose(1, 2).unflatten(2, size)


def _doubled(size: tuple[int, int], times: int) -> tuple[int, int]:
    return size[0] << times, size[1] << times


def _check(cfg: StyleformerConfig) -> None:
    """UserError where g_dict, num_layers, the resolutions and the head sizes don't go together."""
    start, goal = cfg.start_resolution, tuple(cfg.img_resolution)
    count = next((i for i in range(16) if _doubled(start, i) == goal), -2) + 1
    if count < 1:
        raise UserError(
            f"Styleformer doubles its start resolution {start[0]}x{start[1]} and never reaches {goal[0]}x{goal[1]}: "
            "choose another --start-resolution or image size"
        )
    for name, values in (("g_dict", cfg.g_dict), ("num_layers", cfg.num_layers)):
        if len(values) != count or min(values) < 1:
            raise UserError(
                f"{name} wants {count} positive values for {goal[0]}x{goal[1]} "
                f"(one per resolution from {start[0]}x{start[1]} up), got {','.join(map(str, values))}"
            )
    for channels in cfg.g_dict:
        heads = max(cfg.minimum_head, channels // cfg.depth)
        if channels % heads:
            raise UserError(f"g_dict: {channels} channels can't be split over {heads} heads (depth, minimum_head)")
