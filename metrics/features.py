"""One pass of images through detectors, collecting what the asked metrics need."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch

from dnnlib import UserError
from metrics.formulas.frechet import MomentAccumulator, Moments
from metrics.ranks import gather_rows, rank_and_count, shared_spans
from metrics.sources import BLOCK, Source
from torch_utils.distributed import agreed

Progress = Callable[[str, int, int], None]
"""Called as progress(what, images done, images in all)."""


@dataclasses.dataclass(frozen=True)
class Want:
    """What one metric needs of a pass: `kind` ('moments', 'features' or 'probs') of a detector over a named subset."""

    detector: str
    kind: str
    subset: str

    @property
    def output(self) -> str:
        """The detector output behind it."""
        return "probs" if self.kind == "probs" else "features"


Collected = Moments | torch.Tensor
"""Moments, or the float32 rows [N, D] on the CPU."""


class _Sink:
    """Collects one Want."""

    def __init__(self, want: Want, rows: np.ndarray) -> None:
        self.want = want
        self._rows = rows
        self._moments = MomentAccumulator()
        self._kept: list[torch.Tensor] = []

    def append(self, start: int, values: torch.Tensor) -> None:
        """Takes what belongs to the subset from the values of rows `start`, `start + 1`, ... of the pass."""
        first, end = np.searchsorted(self._rows, [start, start + len(values)])
        if first == end:
            return
        values = values[torch.from_numpy(self._rows[first:end] - start).to(values.device)]
        if self.want.kind == "moments":
            self._moments.append(values)
        else:
            self._kept.append(values.cpu())

    def result(self) -> Collected:
        """Everything collected."""
        return self._moments.moments() if self.want.kind == "moments" else torch.cat(self._kept)


def collect(
    source: Source,
    detectors: Mapping[str, Any],
    wants: Collection[Want],
    subsets: Mapping[str, np.ndarray],
    *,
    batch: int,
    device: torch.device,
    progress: Progress,
    what: str,
) -> dict[Want, Collected]:
    """Feeds images of `source` to the detectors once; returns what was wanted.

    `subsets` gives each subset's sorted positions in the source. Ranks share the work; rank 0 returns everything, the
    others nothing. `batch` images go to a detector at once, rounded up to whole blocks.
    Raises UserError if a detector's output is not finite.
    """
    count = max((int(subsets[w.subset][-1]) + 1 for w in wants), default=0)
    sinks = [_Sink(w, subsets[w.subset]) for w in dict.fromkeys(wants)]
    outputs = {w.detector: sorted({v.output for v in wants if v.detector == w.detector}) for w in wants}
    rank, _ = rank_and_count()
    for spans in shared_spans(count, -(-batch // BLOCK) * BLOCK):
        values = agreed(lambda span=spans[rank]: _run(source, span, detectors, outputs, device))  # type: ignore[misc]
        sizes = [stop - start for start, stop in spans]
        gathered = {key: gather_rows(own, sizes) for key, own in values.items()}
        for sink in sinks:
            rows = gathered[sink.want.detector, sink.want.output]
            if rows is not None:
                sink.append(spans[0][0], rows)
        progress(what, spans[-1][1], count)
    return {sink.want: sink.result() for sink in sinks} if rank == 0 else {}


def _run(
    source: Source,
    span: tuple[int, int],
    detectors: Mapping[str, Any],
    outputs: Mapping[str, list[str]],
    device: torch.device,
) -> dict[tuple[str, str], torch.Tensor]:
    """Outputs of all detectors for one span; an empty span still runs one image, to learn the outputs' shapes."""
    start, stop = span
    images = source.images(start, stop) if stop > start else source.images(0, 1)
    images = images.to(device)
    results = {}
    for name, asked in outputs.items():
        for output, values in detectors[name](images, asked).items():
            if not values.isfinite().all():
                raise UserError(f"detector {name} gives non-finite {output} for images of {source.name}")
            results[name, output] = values.float()[: stop - start]
    return results
