"""DINOv2 vision transformer (Oquab et al. 2023, "DINOv2: Learning Robust Visual Features without Supervision") for
FD_DINOv2 (Stein et al. 2023, "Exposing flaws of generative model evaluation metrics and their unfair treatment of
diffusion models").

ViT (Dosovitskiy et al. 2021) with pre-normalisation and LayerScale (Touvron et al. 2021). Width, depth and position
grid follow from the tensors; heads are 64 wide. Tensor names are those of dinov2_vitl14_pretrain.pth.
"""

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import nn

from metrics.detectors.registry import DetectorInfo, register_detector
from metrics.detectors.resize import resize
from metrics.detectors.weights import Weights

INPUT_SIZE = 224
_HEAD_WIDTH = 64
_EPSILON = 1e-6
_GRID_OFFSET = 0.1  # the published code scales the position grid by (patches + 0.1) / grid
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class Block(nn.Module):
    """Self-attention and MLP, each normalised before and scaled after. [N, tokens, width] -> the same."""

    def __init__(self, weights: Weights, prefix: str) -> None:
        super().__init__()
        self.norm1 = _layer_norm(weights, f"{prefix}.norm1")
        self.qkv = weights.linear(f"{prefix}.attn.qkv")
        self.out = weights.linear(f"{prefix}.attn.proj")
        self.scale1 = nn.Parameter(weights.take(f"{prefix}.ls1.gamma"))
        self.norm2 = _layer_norm(weights, f"{prefix}.norm2")
        self.fc1 = weights.linear(f"{prefix}.mlp.fc1")
        self.fc2 = weights.linear(f"{prefix}.mlp.fc2")
        self.scale2 = nn.Parameter(weights.take(f"{prefix}.ls2.gamma"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See class."""
        x = x + self.scale1 * self._attention(self.norm1(x))
        return x + self.scale2 * self.fc2(F.gelu(self.fc1(self.norm2(x))))

    def _attention(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, -1, _HEAD_WIDTH)).permute(2, 0, 3, 1, 4)  # each [N, heads, tokens, 64]
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class DINOv2Detector(nn.Module):
    """The class token after the last normalisation: 1024 features for ViT-L."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, weights: Weights, resize_mode: str) -> None:
        super().__init__()
        self.patch_weight = nn.Parameter(weights.take("patch_embed.proj.weight"))
        self.patch_bias = nn.Parameter(weights.take("patch_embed.proj.bias"))
        self.class_token = nn.Parameter(weights.take("cls_token"))
        self.positions = nn.Parameter(_positions(weights.take("pos_embed"), INPUT_SIZE // self.patch_weight.shape[2]))
        depth = 1
        while f"blocks.{depth}.norm1.weight" in weights:
            depth += 1
        self.blocks = nn.Sequential(*(Block(weights, f"blocks.{i}") for i in range(depth)))
        self.norm = _layer_norm(weights, "norm")
        self.resize_mode = resize_mode
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1) * 255)

    def forward(self, images: torch.Tensor, outputs: Collection[str]) -> dict[str, torch.Tensor]:
        """Images uint8 [N, 3, H, W] -> 'features' [N, width], 'spatial' [N, width, 16, 16] for patches of 14x14."""
        x = (resize(images.float(), INPUT_SIZE, self.resize_mode) - self.mean) / self.std
        patches = F.conv2d(x, self.patch_weight, self.patch_bias, stride=self.patch_weight.shape[2])
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), patches.flatten(2).transpose(1, 2)], 1)
        tokens = self.norm(self.blocks(tokens + self.positions))
        spatial = tokens[:, 1:].transpose(1, 2).unflatten(2, patches.shape[2:])
        return {name: spatial if name == "spatial" else tokens[:, 0] for name in outputs}


def _layer_norm(weights: Weights, name: str) -> nn.LayerNorm:
    weight = weights.take(f"{name}.weight")
    norm = nn.LayerNorm(len(weight), _EPSILON)
    norm.load_state_dict({"weight": weight, "bias": weights.take(f"{name}.bias")})
    return norm


def _positions(embedding: torch.Tensor, patches: int) -> torch.Tensor:
    """Position embedding [1, 1 + grid^2, D] -> [1, 1 + patches^2, D], bicubic as in the published model."""
    token, grid = embedding[:, :1], embedding[:, 1:]
    side = round(grid.shape[1] ** 0.5)
    if side == patches:
        return embedding
    image = grid.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    image = F.interpolate(image, scale_factor=(patches + _GRID_OFFSET) / side, mode="bicubic", align_corners=False)
    return torch.cat([token, image.flatten(2).transpose(1, 2)], 1)


for letter, megabytes in (("l", 1218), ("b", 346)):
    model = f"dinov2_vit{letter}14"
    register_detector(
        DetectorInfo(
            name=model.replace("_", "-"),
            version="1",
            outputs=("features", "spatial"),
            input_size=INPUT_SIZE,
            resize_mode="clean_bicubic",
            licence="Apache-2.0",
            source=f"Meta, DINOv2 ViT-{letter.upper()}/14 distilled",
            build=lambda path, mode: DINOv2Detector(Weights(path), mode or "clean_bicubic"),
            file_name=f"{model}_pretrain.pth",
            file_mb=megabytes,
            url=f"https://dl.fbaipublicfiles.com/dinov2/{model}/{model}_pretrain.pth",
        )
    )
