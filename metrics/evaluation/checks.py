"""Whether metrics can be measured on what is given, before anything is."""

from collections.abc import Sequence
from typing import Any

from dnnlib import UserError
from metrics.evaluation.settings import Split
from metrics.families import FAMILIES
from metrics.metric import Metric
from metrics.names import fitting_name
from metrics.sources import ImageSet, space_of, stored_space


def check(
    metrics: Sequence[Metric],
    G: Any,
    dataset: ImageSet | None,
    images: ImageSet | None,
    split: Split | None,
) -> None:
    """UserError, one line, where something is missing or doesn't fit."""
    if dataset is None:
        raise UserError("metrics need a data set to compare with")
    if (G is None) == (images is None):
        raise UserError("metrics measure either a network or a set of images: give one of them")
    real = _picture_channels(dataset)
    if G is not None:
        space_of(G).check()
        made = space_of(G).picture_channels(G.img_channels)
    else:
        assert images is not None
        made = _picture_channels(images)
    if made != real:
        subject = "the network makes" if G is not None else f"{images.name} has"  # type: ignore[union-attr]
        raise UserError(f"{subject} images of {made} channels, the data set {dataset.name} has {real}")
    if G is not None and G.c_dim not in (0, dataset.label_dim):
        raise UserError(
            f"the network is conditional with labels of length {G.c_dim}, the labels of {dataset.name} have length "
            f"{dataset.label_dim}; measure it on the data set it was trained on"
        )
    for metric in metrics:
        family = FAMILIES[metric.family]
        if family.measure is not None:
            if G is None:
                raise UserError(f"{metric.name} needs a network, not a set of images")
            continue
        if family.needs_held_out:
            _check_split(metric, split)
        _check_counts(metric, dataset, images)


def _picture_channels(images: ImageSet) -> int:
    """Of what is stored, decoded. UserError where it can't be decoded here."""
    space = stored_space(images)
    space.check()
    return space.picture_channels(images.image_shape[0])


def _check_split(metric: Metric, split: Split | None) -> None:
    if split is None:
        raise UserError(
            f"{metric.name} needs pictures that the network was not trained on: give calc_metrics.py "
            "--held-out=ZIP, or a network that was trained with --subset"
        )
    fewest = FAMILIES[metric.family].fewest
    for part in (split.training, split.held_out):
        if len(part) < fewest:
            raise UserError(f"{metric.name} needs at least {fewest} real images, {part.name} has {len(part)}")
    if split.training.content_hash() == split.held_out.content_hash():
        raise UserError(f"--held-out: {split.held_out.name} is what the network was trained on")


def _check_counts(metric: Metric, dataset: ImageSet, images: ImageSet | None) -> None:
    family = FAMILIES[metric.family]
    fewest = family.fewest + metric.neighbours
    if family.real_kind is not None and len(dataset) < fewest:
        raise UserError(f"{metric.name} needs at least {fewest} real images, {dataset.name} has {len(dataset)}")
    if images is not None and len(images) < metric.num_generated:
        raise UserError(
            f"{metric.name} needs {metric.num_generated} generated images, {images.name} has {len(images)}; "
            f"take {fitting_name(metric.name, len(images))}, which needs no more"
        )
