"""Where the data sets of the field come from, for the message that says one is missing."""

import os
from typing import NamedTuple

from dnnlib.cli import command_line


class KnownData(NamedTuple):
    """A data set people name by its usual file name."""

    pattern: str  # occurs in the file's name
    origin: str  # where to get it
    source: str  # what --source takes
    options: str  # the conversion the presets expect


_KNOWN = (
    KnownData("cifar100", "https://www.cs.toronto.edu/~kriz/cifar.html", "cifar-100-python.tar.gz", ""),
    KnownData("cifar", "https://www.cs.toronto.edu/~kriz/cifar.html", "cifar-10-python.tar.gz", ""),
    KnownData("stl10", "https://cs.stanford.edu/~acoates/stl10/", "stl10_binary.tar.gz", " --width=48 --height=48"),
    KnownData(
        "celeba",
        "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        "img_align_celeba.zip",
        " --width=64 --height=64 --transform=center-crop",
    ),
    KnownData(
        "church",
        "https://www.yf.io/p/lsun",
        "church_outdoor_train_lmdb",
        " --width=128 --height=128 --transform=center-crop",
    ),
    KnownData("fashion", "https://github.com/zalandoresearch/fashion-mnist", "train-images-idx3-ubyte.gz", ""),
    KnownData("mnist", "http://yann.lecun.com/exdb/mnist/", "train-images-idx3-ubyte.gz", ""),
)


def missing_data_advice(path: str) -> str:
    """What to do when there is nothing at `path`: the source of a known data set and the command that converts it."""
    name = os.path.basename(path).lower().replace("-", "")
    for known in _KNOWN:
        if known.pattern in name:
            command = f"{command_line('dataset_tool.py')} --source={known.source} --dest={path}{known.options}"
            return f"get {known.source} from {known.origin} and convert it: {command}"
    return f"check the path, or make it: {command_line('dataset_tool.py')} --source=YOUR_IMAGES --dest={path}"
