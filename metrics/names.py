"""Metric names and what they mean."""

import re
from typing import Literal

from dnnlib import UserError
from metrics.detectors import detector_info, detector_names
from metrics.families import FAMILIES
from metrics.metric import DINOV2, INCEPTION, VGG, Metric

_ALIASES = {"inception": INCEPTION, "dinov2": DINOV2}


def _legacy(name: str, family: str, detector: str, neighbours: int = 0) -> Metric:
    return Metric(
        name=name,
        family=family,
        detector=detector,
        num_generated=50_000,
        num_real=50_000,
        real_choice="first",
        mirror=True,
        neighbours=neighbours,
    )


def _ppl(name: str, space: Literal["z", "w"], sampling: Literal["full", "end"], crop: bool) -> Metric:
    return Metric(
        name=name,
        family="ppl",
        detector=VGG,
        num_generated=50_000,
        space=space,
        sampling=sampling,
        crop=crop,
    )


KNOWN: dict[str, Metric] = {
    m.name: m
    for m in [
        Metric(name="fid50k_full", family="fid", detector=INCEPTION, num_generated=50_000),
        Metric(
            name="kid50k_full",
            family="kid",
            detector=INCEPTION,
            num_generated=50_000,
            num_real=1_000_000,
            real_choice="first",
        ),
        Metric(
            name="pr50k3_full",
            family="pr",
            detector=VGG,
            num_generated=50_000,
            num_real=200_000,
            real_choice="first",
            neighbours=3,
        ),
        _ppl("ppl2_wend", "w", "end", crop=False),
        Metric(name="is50k", family="is", detector=INCEPTION, num_generated=50_000),
        Metric(name="fd_dinov2", family="fid", detector=DINOV2, num_generated=50_000),
        _legacy("fid50k", "fid", INCEPTION),
        _legacy("kid50k", "kid", INCEPTION),
        _legacy("pr50k3", "pr", VGG, neighbours=3),
        _ppl("ppl_zfull", "z", "full", crop=True),
        _ppl("ppl_wfull", "w", "full", crop=True),
        _ppl("ppl_zend", "z", "end", crop=True),
        _ppl("ppl_wend", "w", "end", crop=True),
    ]
}
PATTERN_HELP = "FAMILY + thousands of images [+ _full] [+ _DETECTOR], e.g. fid5k_full, cov10k, kid2k_lite0"
_PATTERN = re.compile(r"([a-z]+)(\d+)k(\d+)?(_full)?(?:_([a-z0-9][a-z0-9_.-]*))?")
_FD_DINOV2 = re.compile(r"fd_dinov2_(\d+)k(_full)?")


def list_metrics() -> list[str]:
    """The known names of the field; any size and detector is reached by the pattern (PATTERN_HELP)."""
    return list(KNOWN)


def parse_name(name: str) -> Metric:
    """The metric that a name stands for; UserError if it stands for none."""
    if name in KNOWN:
        return KNOWN[name]
    if match := _FD_DINOV2.fullmatch(name):
        return Metric(name=name, family="fid", detector=DINOV2, num_generated=_thousands(name, match[1]))
    match = _PATTERN.fullmatch(name)
    if match is None or match[1] not in FAMILIES:
        raise UserError(f"unknown metric {name!r}; known: {', '.join(KNOWN)}, and {PATTERN_HELP}")
    word, count, neighbours, full, suffix = match.groups()
    family = FAMILIES[word]
    if neighbours is not None and not family.neighbours:
        raise UserError(f"metric {name!r}: {word} takes no number of neighbours after the k")
    if suffix is None and family.default_detector is None:
        raise UserError(f"metric {name!r} names no detector; say e.g. {name}_dinov2")
    detector = _ALIASES.get(suffix, suffix) or family.default_detector
    if detector not in detector_names():
        raise UserError(f"metric {name!r}: unknown detector {suffix!r}; known: {', '.join(detector_names())}")
    if family.detectors is not None and detector not in family.detectors:
        raise UserError(f"metric {name!r}: {word} is measured with {', '.join(family.detectors)} only")
    needed = {"probs" if kind == "probs" else "features" for kind in (family.real_kind, family.generated_kind) if kind}
    if lacking := needed - set(detector_info(detector).outputs):
        raise UserError(f"metric {name!r}: the detector {detector} has no {', '.join(sorted(lacking))}")
    size = _thousands(name, count)
    return Metric(
        name=name,
        family=word,
        detector=detector,
        num_generated=size,
        num_real=None if full else size,
        neighbours=int(neighbours or family.neighbours),
    )


def parse_names(names: list[str]) -> list[Metric]:
    """Several names; a name given twice counts once."""
    return [parse_name(name) for name in dict.fromkeys(names)]


def larger_is_better(name: str) -> bool:
    """Whether of two values of a metric the larger one is the better; False for a family that is not known here."""
    word = KNOWN[name].family if name in KNOWN else re.match(r"[a-z]*", name)[0]  # type: ignore[index]
    return word in FAMILIES and FAMILIES[word].larger_is_better


def _thousands(name: str, digits: str) -> int:
    if int(digits) == 0:
        raise UserError(f"metric {name!r} asks for 0 images")
    return int(digits) * 1000
