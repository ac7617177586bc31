"""What the pages speak of and a test can't have: trained networks, other people's data sets, detectors' weights.

A file that a command reads and that isn't there is made when its name is known here; any other is the page's mistake.
"""

import dataclasses
import fnmatch
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

import support.dataset_samples as samples
from metrics.detectors import registry
from support import official_files
from support.docs.pages import PAGES, ROOT, read_page
from support.small_generators import save_autoencoder, small_generator
from training import networks
from training.config import TrainingConfig
from training.networks.discriminators.stylegan2 import StyleGAN2DiscriminatorConfig

EMOJI = ROOT / "datasets" / "noto-emoji-32.zip"
LINKED = ("train.py", "generate.py", "calc_metrics.py", "dataset_tool.py", "Makefile", "pyproject.toml",
          "constraints.txt", "requirements-nodeps.txt", "requirements-peers.txt", "benchmarks")  # fmt: skip
CLASSES = 10


def checkout(folder: Path) -> Path:
    """A folder like a checkout after `make setup`, to run a page's commands in."""
    (folder / "datasets").mkdir(parents=True)
    (folder / "docs" / "images").mkdir(parents=True)
    _some_of(EMOJI, folder / "datasets" / EMOJI.name)
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").touch()
    for stamp in (".demo", ".all", ".dev"):
        (folder / ".venv" / stamp).touch()
    return folder


def _some_of(source: Path, dest: Path) -> None:
    """Every ninth picture of a data set zip, which leaves all classes."""
    images, labels = samples.read_dataset_zip(source)
    assert labels is not None
    samples.dataset_zip(dest, images[::9], labels[::9])


def make(path: Path) -> None:
    """Makes the file or folder `path` if there is none and its name is known."""
    if path.exists():
        return
    for pattern, maker in MAKERS.items():
        if fnmatch.fnmatch(path.name, pattern):
            path.parent.mkdir(parents=True, exist_ok=True)
            maker(path)
            return


# -- networks ---------------------------------------------------------------------------------------------------------


def _discriminator() -> nn.Module:
    return networks.build(StyleGAN2DiscriminatorConfig(channel_base=64))


def _network(path: Path, classes: int = 0) -> None:
    G = small_generator(c_dim=classes)
    config = TrainingConfig()
    config.data.path = str(EMOJI)
    networks.save(path, {"G": G, "G_ema": G}, training_config=config)


def _conditional(path: Path) -> None:
    _network(path, CLASSES)


def _stylenat_checkpoint(path: Path) -> None:
    path.write_bytes(official_files.content("official_stylenat_new.pt"))


GIVEN: dict[str, Callable[[], object]] = {
    "G": small_generator,
    "G_ema": small_generator,
    "D": _discriminator,
    "z": lambda: torch.randn(4, 16),
    "c": lambda: torch.zeros(4, 0),
    "ws": lambda: torch.randn(4, 5, 16),
    "cfg": TrainingConfig,
}  # names that a Python block may take as given

# -- data sets --------------------------------------------------------------------------------------------------------


def _labels(count: int) -> list[int]:
    return [i % CLASSES for i in range(count)]


def _cifar10(path: Path) -> None:
    samples.cifar10_tar(path, samples.pictures(60), _labels(60), test=10)


def _cifar10_zip(path: Path) -> None:
    samples.dataset_zip(path, samples.pictures(60), _labels(60))


def _unseen(path: Path) -> None:
    samples.dataset_zip(path, samples.pictures(40, seed=1), _labels(40))


def _stl10(path: Path) -> None:
    images = samples.pictures(60, 96, 96)
    parts = {"train": images[:20], "test": images[20:30], "unlabeled": images[30:]}
    samples.stl10_tar(path, parts, {"train": _labels(20), "test": _labels(10)})


def _celeba(path: Path) -> None:
    images = samples.pictures(12, 218, 178)
    samples.write_zip(path, {f"img_align_celeba/{i + 1:06d}.png": samples.png(x) for i, x in enumerate(images)})


def _lsun(path: Path) -> None:
    import lmdb

    with lmdb.open(str(path), map_size=1 << 26) as database, database.begin(write=True) as transaction:
        for i, image in enumerate(samples.pictures(12, 8, 8)):
            out = io.BytesIO()
            Image.fromarray(image).resize((300, 256)).save(out, "webp")
            transaction.put(f"{i:040x}".encode(), out.getvalue())


def _folder_of(width: int, height: int, suffix: str = "png", count: int = 12) -> Callable[[Path], None]:
    def make_folder(path: Path) -> None:
        for i in range(count):
            place = path / ("cats", "dogs")[i % 2]
            place.mkdir(parents=True, exist_ok=True)
            coarse = np.random.RandomState(i).randint(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(coarse).resize((width, height)).save(place / f"{i:05d}.{suffix}")

    return make_folder


def _picture(path: Path) -> None:
    Image.fromarray(samples.pictures(1, 40, 50)[0]).save(path)


def _autoencoder(path: Path) -> None:
    save_autoencoder(path)


def _from_a_page(path: Path) -> None:
    """A file that some page shows."""
    blocks = [block for page in PAGES for block in read_page(page).blocks]
    path.write_text(next(block.text for block in blocks if block.marks.get("file") == path.name))


MAKERS: dict[str, Callable[[Path], None]] = {
    "*.sbatch": _from_a_page,
    "*[Cc][Oo][Nn][Dd]*.pkl": _conditional,
    "*.pkl": _network,
    "*.safetensors": _network,
    "*.pt": _stylenat_checkpoint,
    "cifar-10-python.tar.gz": _cifar10,
    "cifar10.zip": _cifar10_zip,
    "stl10_binary.tar.gz": _stl10,
    "img_align_celeba.zip": _celeba,
    "church_outdoor_train_lmdb": _lsun,
    "images1024x1024": _folder_of(1024, 1024, count=2),
    "images": _folder_of(480, 320),
    "leftImg8bit": _folder_of(512, 256, count=8),
    "cat": _folder_of(512, 512, count=4),
    "photos*": _folder_of(80, 60, "jpg"),
    "my-samples": _folder_of(32, 32, count=64),
    "unseen-pictures.zip": _unseen,
    "picture.png": _picture,
    "sd-vae-ft-ema": _autoencoder,
    "*.pth": lambda path: torch.save(torch.randn(3 * 64 * 64, 8), path),
}

# -- detectors --------------------------------------------------------------------------------------------------------


class ToyDetector(nn.Module):
    """Random convolutions of an 8x8 copy of the image: stands in for every detector."""

    resize_mode = "none"

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 12, 3, 2, padding=1))
        for p in self.layers.parameters():
            p.data = torch.randn(p.shape, generator=generator) / 5

    def forward(self, images: torch.Tensor, outputs: object) -> dict[str, torch.Tensor]:
        small = nn.functional.adaptive_avg_pool2d(images.float() / 255, 8)
        features = self.layers(small).mean((2, 3))
        return {"features": features, "probs": features.softmax(1)}

    def lpips(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(images / 255, 8).flatten(1)


def toy_detectors(weights: Path) -> dict[str, registry.DetectorInfo]:
    """Every registered detector with the toy in its place, whose weights are the file `weights`."""
    weights.write_bytes(b"toy")
    return {
        name: dataclasses.replace(info, build=lambda path, mode: ToyDetector(), sha256=None, locate=lambda: weights)
        for name, info in registry._DETECTORS.items()
    }
