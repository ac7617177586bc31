"""Feature networks for metrics; importing this package registers the built-in ones."""

from metrics.detectors import dinov2, inception, mobile, vgg
from metrics.detectors.registry import (
    Detector,
    DetectorInfo,
    DetectorMissing,
    assign_files,
    detector_info,
    detector_names,
    find_weights,
    load_detector,
    register_detector,
)

__all__ = [
    "Detector",
    "DetectorInfo",
    "DetectorMissing",
    "assign_files",
    "detector_info",
    "detector_names",
    "dinov2",
    "find_weights",
    "inception",
    "load_detector",
    "mobile",
    "register_detector",
    "vgg",
]
