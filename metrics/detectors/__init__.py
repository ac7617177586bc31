"""Feature networks for metrics; importing this package registers the built-in ones."""

from metrics.detectors import mobile
from metrics.detectors.registry import (
    Detector,
    DetectorInfo,
    DetectorMissing,
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
    "detector_info",
    "detector_names",
    "find_weights",
    "load_detector",
    "mobile",
    "register_detector",
]
