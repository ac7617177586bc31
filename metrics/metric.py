"""What a metric is."""

import dataclasses
from typing import Literal

INCEPTION, VGG, DINOV2 = "inception-2015-12-05", "vgg16", "dinov2-vitl14"
PYTORCH_FID = "inception-pytorch-fid"  # the same weights, fed as pytorch-fid and StyleNAT do


@dataclasses.dataclass(frozen=True)
class Metric:
    """One metric.

    `num_real` None: all images of the data set. A smaller number takes the `first` ones (the field's old names) or a
    fixed `random` choice. `mirror`: the data set's mirrored images count too if it was trained on them.
    `space`, `sampling` and `crop` are those of path lengths.
    """

    name: str
    family: str
    detector: str
    num_generated: int
    num_real: int | None = None
    real_choice: Literal["first", "random"] = "random"
    mirror: bool = False
    neighbours: int = 0
    space: Literal["z", "w"] = "w"
    sampling: Literal["full", "end"] = "end"
    crop: bool = False
    biased_cov: bool = False  # Fréchet: divide covariances by N, as StyleGAN's code does; else by N - 1, as pytorch-fid
