"""Metrics of generated images: FID, KID, IS, precision and recall, density and coverage, perceptual path length."""

from metrics.detectors import DetectorMissing
from metrics.evaluate import compare_networks, compute_metrics, require_detectors
from metrics.evaluation.compare import Comparison, comparison_table
from metrics.evaluation.settings import Split
from metrics.families import FamilyInfo, register_family
from metrics.metric import Metric
from metrics.names import PATTERN_HELP, larger_is_better, list_metrics, parse_name, parse_names
from metrics.result import MetricResult, table

__all__ = [
    "PATTERN_HELP",
    "Comparison",
    "DetectorMissing",
    "FamilyInfo",
    "Metric",
    "MetricResult",
    "Split",
    "compare_networks",
    "comparison_table",
    "compute_metrics",
    "larger_is_better",
    "list_metrics",
    "parse_name",
    "parse_names",
    "register_family",
    "require_detectors",
    "table",
]
