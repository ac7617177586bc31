"""A perceptual distance from any convolutional detector of metrics/detectors (LPIPS without its learned weights;
Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", section 3)."""

from typing import Any

import torch
from torch import nn

from dnnlib.errors import UserError


class PerceptualDistance:
    """Distances to one target. The detector's last feature map of every resolution, each position scaled to unit
    length, and the pixels themselves; mean squared differences, averaged over the maps."""

    def __init__(self, detector: nn.Module, target: torch.Tensor):
        """`detector` as `metrics.detectors.load_detector` returns it; target [1, C, H, W] in [-1, 1].

        UserError if the detector has no feature maps (a vision transformer) or can't be differentiated.
        """
        self._detector = detector
        with torch.no_grad():
            self._target = self._maps(target)
        if len(self._target) < 2:
            raise UserError("this detector has no feature maps to compare: choose a convolutional one such as lite0")

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] in [-1, 1] -> [N], differentiable."""
        pairs = zip(self._maps(images), self._target, strict=True)
        return torch.stack([(a - b).square().sum(1).mean((1, 2)) for a, b in pairs]).mean(0)

    def _maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The image itself, then a feature map per resolution, finest first."""
        maps: dict[tuple[int, int], torch.Tensor] = {}

        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
                maps[(output.shape[2], output.shape[3])] = output

        handles = [module.register_forward_hook(keep) for module in self._detector.modules()]
        try:
            pixels = (images * 127.5 + 128).clamp(0, 255)
            self._detector(pixels.expand(-1, 3, -1, -1), ("features",))
        finally:
            for handle in handles:
                handle.remove()
        units = [m / (m.square().sum(1, keepdim=True) + 1e-10).sqrt() for m in maps.values()]
        return [images.clamp(-1, 1), *units]
