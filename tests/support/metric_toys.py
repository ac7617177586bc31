"""A data set in memory, small generators, and a detector that costs nothing: what metrics need, without networks."""

import dataclasses
import hashlib

import numpy as np
import torch
from torch import nn

from metrics import names
from metrics.detectors import DetectorInfo, registry


class ToyImages:
    """Smooth random images, uint8 [count, channels, size, size]; the label is the number of the image's class."""

    def __init__(self, count=1000, channels=3, size=8, seed=0, classes=0, name="toys"):
        rng = np.random.RandomState(seed)
        low = torch.from_numpy(rng.rand(count, channels, 3, 3))
        images = nn.functional.interpolate(low, (size, size), mode="bilinear", align_corners=True)
        self.images = (images * 255).to(torch.uint8)
        self.classes = self.label_dim = classes
        self.name = name
        self.loads = 0

    @property
    def image_shape(self):
        return tuple(self.images.shape[1:])

    def __len__(self):
        return len(self.images)

    def load(self, indices):
        self.loads += len(indices)
        indices = torch.as_tensor(list(indices))
        labels = torch.zeros(len(indices), 0)
        if self.classes:
            labels = nn.functional.one_hot(indices % self.classes, self.classes).float()
        return self.images[indices], labels

    def content_hash(self):
        return hashlib.sha256(self.images.numpy().tobytes()).hexdigest()


class ToyMapping(nn.Module):
    def __init__(self, dim, c_dim, num_ws):
        super().__init__()
        self.linear = nn.Linear(dim + c_dim, dim)
        self.num_ws = num_ws

    def forward(self, z, c, truncation_psi=1.0, truncation_cutoff=None):
        return self.linear(torch.cat([z, c], 1))[:, None].expand(-1, self.num_ws, -1)


class ToyGenerator(nn.Module):
    """The protocol of generators; noise is drawn from torch's default generator, as in training."""

    def __init__(self, c_dim=0, channels=3, size=8, noise=0.05):
        super().__init__()
        self.z_dim = self.w_dim = 6
        self.c_dim, self.num_ws = c_dim, 2
        self.img_channels, self.img_resolution, self.img_size = channels, size, (size, size)
        self.noise = noise
        weights = np.random.RandomState(1).randn(2, 500)
        self.mapping = ToyMapping(6, c_dim, 2)
        self.mapping.linear.weight.data = torch.from_numpy(weights[0, : 6 * (6 + c_dim)]).float().view(6, 6 + c_dim)
        self.mapping.linear.bias.data = torch.zeros(6)
        self.register_buffer("basis", torch.from_numpy(np.random.RandomState(2).randn(6, channels * size**2)).float())

    def synthesis(self, ws, noise_mode="random"):
        images = torch.tanh(ws[:, 0] @ self.basis * 0.2).view(-1, self.img_channels, *self.img_size)
        return images + self.noise * torch.randn_like(images) if noise_mode == "random" else images

    def forward(self, z, c, truncation_psi=1.0, truncation_cutoff=None, noise_mode="random"):
        return self.synthesis(self.mapping(z, c), noise_mode)


class ToyDetector(nn.Module):
    """Fixed random projections of the pixels; also embeds for LPIPS."""

    resize_mode = "none"

    def __init__(self, width=12):
        super().__init__()
        self.register_buffer("weight", torch.from_numpy(np.random.RandomState(3).randn(3 * 64, width)).float() / 200)

    def forward(self, images, outputs):
        features = images.flatten(1).float() @ self.weight
        return {"features": features, "probs": features.softmax(1)}

    def lpips(self, images):
        return images.flatten(1) / 255


class BrokenDetector(ToyDetector):
    def forward(self, images, outputs):
        return {name: value * torch.nan for name, value in super().forward(images, outputs).items()}


def register_toys(folder):
    """Registers detectors `toy`, `broken` and a stand-in for `vgg16`, whose weights file is a dummy in `folder`, and
    short versions `small_NAME` of known metrics."""
    for known, detector in (("fid50k", "toy"), ("ppl2_wend", "vgg16"), ("ppl_zfull", "vgg16"), ("ppl_wfull", "vgg16")):
        name = f"small_{known}"
        names.KNOWN[name] = dataclasses.replace(names.KNOWN[known], name=name, detector=detector, num_generated=300)
    weights = folder / "toy.bin"
    weights.write_bytes(b"toy")
    for name, build in (("toy", ToyDetector), ("broken", BrokenDetector), ("vgg16", ToyDetector)):
        registry._DETECTORS[name] = DetectorInfo(
            name=name,
            version="1",
            outputs=("features", "probs"),
            input_size=8,
            resize_mode="none",
            licence="MIT",
            source="tests",
            build=lambda path, mode, build=build: build(),
            file_name="toy.bin",
            file_mb=0,
            locate=lambda: weights,
        )
