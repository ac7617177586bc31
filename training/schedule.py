"""Values that change over a run: a number, or a ramp that says what the number is after so many images."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from dnnlib.config import Weight
from dnnlib.errors import UserError


@dataclass
class Ramp:
    """From `start` to `end` within `kimg` thousand images, constant before and after (recipes of R3GAN, appendix)."""

    start: Weight
    end: Weight
    kimg: Weight  # length of the ramp
    shape: Literal["linear", "cosine"] = "linear"
    begin_kimg: Weight = 0.0  # `start` holds until here
    warmup_kimg: Weight = 0.0  # at the very start of the run the value rises linearly from 0 within so many


Value = Weight | Ramp


def at(value: Value, nimg: int) -> float:
    """What `value` is after `nimg` images."""
    if not isinstance(value, Ramp):
        return value
    end_kimg = value.begin_kimg + value.kimg
    left = min(max((end_kimg - nimg / 1000) / value.kimg, 0.0), 1.0)  # share of the ramp that is still to come
    if value.shape == "cosine":
        left = (1 + math.cos(math.pi * (1 - left))) / 2
    result = value.end + (value.start - value.end) * left
    if nimg < value.warmup_kimg * 1000:
        result *= nimg / (value.warmup_kimg * 1000)
    return result


def ramps(cfg: Any, path: str = "") -> Iterator[tuple[str, Ramp]]:
    """(dotted name, ramp) of everything that is scheduled in a config dataclass, such as `G_opt.lr` or `loss.gamma`."""
    if isinstance(cfg, Ramp):
        yield path, cfg
    elif dataclasses.is_dataclass(cfg) and not isinstance(cfg, type):
        for field in dataclasses.fields(cfg):
            yield from ramps(getattr(cfg, field.name), f"{path}.{field.name}" if path else field.name)
    elif isinstance(cfg, (list, tuple)):
        for i, item in enumerate(cfg):
            yield from ramps(item, f"{path}.{i}")


def check_ramps(cfg: Any) -> None:
    """UserError for a ramp without length."""
    for name, ramp in ramps(cfg):
        if not ramp.kimg > 0 or ramp.begin_kimg < 0 or ramp.warmup_kimg < 0:
            raise UserError(f"{name}: a ramp needs kimg above 0 and no negative times, got {dataclasses.asdict(ramp)}")
