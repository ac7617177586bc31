"""VGG-16 in NVIDIA's TorchScript form: features for precision and recall, LPIPS embeddings for PPL.

LPIPS: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric".
"""

from collections.abc import Collection
from pathlib import Path

import torch
from torch import nn

from dnnlib import UserError
from metrics.detectors.registry import DetectorInfo, register_detector
from metrics.detectors.weights import is_torchscript, load_torchscript

BUILT_IN = "in_file"


class VGGDetector(nn.Module):
    """Called as published; the file resizes images for features itself."""

    resize_mode = BUILT_IN

    def __init__(self, script: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.script = script

    def forward(self, images: torch.Tensor, outputs: Collection[str]) -> dict[str, torch.Tensor]:
        """Images uint8 [N, 3, H, W] -> 'features' [N, 4096]."""
        return {name: self.script(images, return_features=True) for name in outputs}

    def lpips(self, images: torch.Tensor) -> torch.Tensor:
        """Float images [N, 3, H, W] in [0, 255], not resized -> embeddings [N, D]: squared differences are LPIPS."""
        return self.script(images, resize_images=False, return_lpips=True)


def build_vgg(path: Path, resize_mode: str | None) -> VGGDetector:
    """The detector from vgg16.pt."""
    if not is_torchscript(path):
        raise UserError(f"{path} is not a TorchScript file; vgg16 needs the published vgg16.pt")
    if resize_mode not in (None, BUILT_IN):
        raise UserError(f"the file {path.name} resizes images itself; metrics with vgg16 take no other resize mode")
    return VGGDetector(load_torchscript(path))


register_detector(
    DetectorInfo(
        name="vgg16",
        version="1",
        outputs=("features",),
        input_size=224,
        resize_mode=BUILT_IN,
        licence="NVIDIA Source Code License (the file); CC BY 4.0 (the weights)",
        source="NVIDIA, StyleGAN2-ADA metrics",
        build=build_vgg,
        file_name="vgg16.pt",
        file_mb=553,
        url="https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/vgg16.pt",
    )
)
