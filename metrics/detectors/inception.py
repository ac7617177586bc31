"""Inception-v3 as FID knows it: the network of TensorFlow's inception-2015-12-05 graph.

Architecture: Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision", figures 5, 6, 7, 10.
Quirks of that graph: average pools leave the border's zeros out of the mean; the last block pools by maximum;
pixels enter as (x - 128) / 128; 1008 logits. The inception score leaves the logits' bias out.

Two published forms of the weights are read: the state dict pt_inception-2015-12-05-6726825d.pth, for our own module
(channel counts and kernel sizes follow from its tensors), and NVIDIA's TorchScript file, which resizes by itself.
"""

import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from torch import nn

from dnnlib import UserError
from metrics.detectors.registry import DetectorInfo, register_detector
from metrics.detectors.resize import resize
from metrics.detectors.weights import ConvRelu, Weights, is_torchscript, load_torchscript

INPUT_SIZE = 299
RESIZE_MODE = "tf1_bilinear"
PYTORCH_FID_RESIZE_MODE = "torch_bilinear"
Pixels = Callable[[torch.Tensor], torch.Tensor]
_EPSILON = 1e-3  # of batch norm
_VALID = {"Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_4a_3x3"}  # not padded, like every convolution of stride 2


class Fork(nn.Module):
    """Several modules on the same input, their outputs concatenated along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> [N, sum of branches' channels, H', W']."""
        return torch.cat([branch(x) for branch in self.branches], 1)


class InceptionBuilder:
    """Blocks of the network from the published tensors; names are those of the state dict."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def chain(self, prefix: str, *names: str, stride: int = 1) -> nn.Sequential:
        """Convolutions one after the other; `stride` is that of the last."""
        strides = [1] * (len(names) - 1) + [stride]
        return nn.Sequential(*(self._conv(prefix + name, s) for name, s in zip(names, strides)))

    def pooled(self, prefix: str, pool: nn.Module) -> nn.Sequential:
        """3x3 pooling, then a 1x1 convolution."""
        return nn.Sequential(pool, self._conv(f"{prefix}branch_pool", 1))

    def block_35(self, prefix: str) -> Fork:
        """35x35 block (figure 5)."""
        return Fork(
            self.chain(prefix, "branch1x1"),
            self.chain(prefix, "branch5x5_1", "branch5x5_2"),
            self.chain(prefix, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
            self.pooled(prefix, _mean_pool()),
        )

    def reduce_35(self, prefix: str) -> Fork:
        """35x35 -> 17x17 (figure 10)."""
        return Fork(
            self.chain(prefix, "branch3x3", stride=2),
            self.chain(prefix, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3", stride=2),
            nn.MaxPool2d(3, 2),
        )

    def block_17(self, prefix: str) -> Fork:
        """17x17 block with 1x7 and 7x1 convolutions (figure 6)."""
        return Fork(
            self.chain(prefix, "branch1x1"),
            self.chain(prefix, *(f"branch7x7_{i}" for i in (1, 2, 3))),
            self.chain(prefix, *(f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5))),
            self.pooled(prefix, _mean_pool()),
        )

    def reduce_17(self, prefix: str) -> Fork:
        """17x17 -> 8x8."""
        return Fork(
            self.chain(prefix, "branch3x3_1", "branch3x3_2", stride=2),
            self.chain(prefix, *(f"branch7x7x3_{i}" for i in (1, 2, 3, 4)), stride=2),
            nn.MaxPool2d(3, 2),
        )

    def block_8(self, prefix: str, pool: nn.Module) -> Fork:
        """8x8 block whose branches end in 1x3 beside 3x1 (figure 7)."""
        wide = Fork(self.chain(prefix, "branch3x3_2a"), self.chain(prefix, "branch3x3_2b"))
        deep = Fork(self.chain(prefix, "branch3x3dbl_3a"), self.chain(prefix, "branch3x3dbl_3b"))
        return Fork(
            self.chain(prefix, "branch1x1"),
            nn.Sequential(self.chain(prefix, "branch3x3_1"), wide),
            nn.Sequential(self.chain(prefix, "branch3x3dbl_1", "branch3x3dbl_2"), deep),
            self.pooled(prefix, pool),
        )

    def network(self) -> nn.Sequential:
        """Images [N, 3, 299, 299] in [-1, 1] -> [N, 2048, 8, 8]."""
        return nn.Sequential(
            self.chain("", "Conv2d_1a_3x3", stride=2),
            self.chain("", "Conv2d_2a_3x3", "Conv2d_2b_3x3"),
            nn.MaxPool2d(3, 2),
            self.chain("", "Conv2d_3b_1x1", "Conv2d_4a_3x3"),
            nn.MaxPool2d(3, 2),
            *(self.block_35(f"Mixed_5{letter}.") for letter in "bcd"),
            self.reduce_35("Mixed_6a."),
            *(self.block_17(f"Mixed_6{letter}.") for letter in "bcde"),
            self.reduce_17("Mixed_7a."),
            self.block_8("Mixed_7b.", _mean_pool()),
            self.block_8("Mixed_7c.", nn.MaxPool2d(3, 1, 1)),
        )

    def _conv(self, name: str, stride: int) -> ConvRelu:
        weight, bias = self._weights.folded(f"{name}.conv", f"{name}.bn", _EPSILON)
        height, width = weight.shape[2:]
        padding = (0, 0) if stride > 1 or name in _VALID else (height // 2, width // 2)
        return ConvRelu(weight, bias, stride, padding)


def _mean_pool() -> nn.AvgPool2d:
    return nn.AvgPool2d(3, 1, 1, count_include_pad=False)


class InceptionDetector(nn.Module):
    """2048 pooled features, 1008 logits without bias, and their softmax."""

    def __init__(self, weights: Weights, resize_mode: str, pixels: Pixels) -> None:
        super().__init__()
        self.pixels = pixels
        network = InceptionBuilder(weights).network()
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # 1.4x on a CPU
        self.classifier = weights.linear("fc", bias=False)
        self.resize_mode = resize_mode

    def forward(self, images: torch.Tensor, outputs: Collection[str]) -> dict[str, torch.Tensor]:
        """Images uint8 [N, 3, H, W] -> of 'features' [N, 2048], 'logits', 'probs' [N, 1008] those asked for."""
        x = self.pixels(resize(images.float(), INPUT_SIZE, self.resize_mode))
        features = self.network(x).mean((2, 3))
        logits = self.classifier(features)
        every = {"features": features, "logits": logits, "probs": logits.softmax(1)}
        return {name: every[name] for name in outputs}


class TorchScriptInception(nn.Module):
    """NVIDIA's form, called as published: uint8 images of any size in, resizing inside."""

    resize_mode = RESIZE_MODE

    def __init__(self, script: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.script = script

    def forward(self, images: torch.Tensor, outputs: Collection[str]) -> dict[str, torch.Tensor]:
        """Images uint8 [N, 3, H, W] -> 'features' [N, 2048] and/or 'probs' [N, 1008]; each takes one run."""
        result = {}
        if "features" in outputs:
            result["features"] = self.script(images, return_features=True)
        if "probs" in outputs:
            result["probs"] = self.script(images, no_output_bias=True)
        return result


def graph_pixels(x: torch.Tensor) -> torch.Tensor:
    """[0, 255] -> what the original graph computes with."""
    return (x - 128) / 128


def pytorch_fid_pixels(x: torch.Tensor) -> torch.Tensor:
    """[0, 255] -> [-1, 1], as pytorch-fid feeds the network, and so StyleNAT's published figures."""
    return x / 127.5 - 1


def build_pytorch_fid(path: Path, resize_mode: str | None) -> nn.Module:
    """The detector as pytorch-fid runs it."""
    return InceptionDetector(Weights(path), resize_mode or PYTORCH_FID_RESIZE_MODE, pytorch_fid_pixels)


def build_inception(path: Path, resize_mode: str | None) -> nn.Module:
    """The detector from either published form."""
    if not is_torchscript(path):
        return InceptionDetector(Weights(path), resize_mode or RESIZE_MODE, graph_pixels)
    if resize_mode not in (None, RESIZE_MODE):
        raise UserError(
            f"the TorchScript file {path.name} always resizes by {RESIZE_MODE}; for {resize_mode} give the .pth form"
        )
    return TorchScriptInception(load_torchscript(path))


INCEPTION = register_detector(
    DetectorInfo(
        name="inception-2015-12-05",
        version="2015-12-05",
        outputs=("features", "logits", "probs"),
        input_size=INPUT_SIZE,
        resize_mode=RESIZE_MODE,
        licence="Apache-2.0",
        source="TensorFlow's inception-2015-12-05 graph, converted by the authors of pytorch-fid",
        build=build_inception,
        file_name="pt_inception-2015-12-05-6726825d.pth",
        file_mb=96,
        other_file_names=("inception-2015-12-05.pt",),
        url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    )
)
register_detector(
    dataclasses.replace(
        INCEPTION,
        name="inception-pytorch-fid",
        resize_mode=PYTORCH_FID_RESIZE_MODE,
        build=build_pytorch_fid,
        other_file_names=(),
    )
)
