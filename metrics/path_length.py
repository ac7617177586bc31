"""Perceptual path length of a generator: pairs of images a step apart in latent space, and their distance."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F

from dnnlib import UserError
from metrics.features import Progress
from metrics.formulas.path_length import EPSILON, lerp, slerp, trimmed_mean
from metrics.metric import Metric
from metrics.ranks import gather_rows, rank_and_count, shared_spans
from metrics.sources import BLOCK, GeneratorSource, as_rgb, space_of
from torch_utils.distributed import agreed

_LARGEST = 256  # pixels; larger images are box-reduced to it


def perceptual_path_length(
    metric: Metric,
    G: Any,
    source: GeneratorSource,
    detector: Any,
    *,
    batch: int,
    progress: Progress,
) -> dict[str, float] | None:
    """PPL over `metric.num_generated` pairs (Karras et al. 2019, eq. 2 and 3); rank 0 has the result, others None.

    Pairs are keyed like images (see GeneratorSource): z0, z1 and t of pair i depend on (seed, i) only.
    """
    rank, _ = rank_and_count()
    kept: list[torch.Tensor] = []
    for spans in shared_spans(metric.num_generated, -(-batch // BLOCK) * BLOCK):
        own = agreed(lambda span=spans[rank]: _distances(metric, G, source, detector, span))  # type: ignore[misc]
        rows = gather_rows(own, [stop - start for start, stop in spans])
        if rows is not None:
            kept.append(rows.cpu())
        progress(metric.name, spans[-1][1], metric.num_generated)
    return {metric.name: trimmed_mean(torch.cat(kept))} if rank == 0 else None


def _distances(
    metric: Metric,
    G: Any,
    source: GeneratorSource,
    detector: Any,
    span: tuple[int, int],
) -> torch.Tensor:
    """Squared LPIPS distances over epsilon^2 of the pairs in `span`: [N]."""
    values = []
    for ws in _path_ends(metric, G, source, span):
        embedded = detector.lpips(
            _prepare(space_of(G).decode(G.synthesis(ws.flatten(0, 1), noise_mode="const")), metric.crop)
        )
        a, b = embedded.unflatten(0, (2, -1))
        values.append((a - b).square().sum(1) / EPSILON**2)
    distances = torch.cat(values) if values else torch.zeros(0)
    if not distances.isfinite().all():
        raise UserError(f"{metric.name}: non-finite path lengths; the network has diverged, use an earlier snapshot")
    return distances


def _path_ends(
    metric: Metric,
    G: Any,
    source: GeneratorSource,
    span: tuple[int, int],
) -> Iterator[torch.Tensor]:
    """For every block of pairs the styles at t and at t + epsilon: [2, N, num_ws, w_dim]."""
    for start, stop in source.blocks(*span):
        z, c, t = source.latents(start, stop, per_image=2)
        t = torch.zeros_like(t) if metric.sampling == "end" else t
        if metric.space == "z":
            zs = [slerp(z[:, 0], z[:, 1], u[:, None]) for u in (t, t + EPSILON)]
            yield torch.stack([G.mapping(z, c, truncation_psi=1.0, truncation_cutoff=None) for z in zs])
        else:
            w0, w1 = (G.mapping(z[:, k], c, truncation_psi=1.0, truncation_cutoff=None) for k in (0, 1))
            yield torch.stack([lerp(w0, w1, u[:, None, None]) for u in (t, t + EPSILON)])


def _prepare(images: torch.Tensor, crop: bool) -> torch.Tensor:
    """Network output -> what LPIPS takes: float [N, 3, h, w] in [0, 255], cropped for the old names, at most 256."""
    factor = max(images.shape[2:]) // _LARGEST  # of the whole image: a cropped one comes out smaller than 256
    if crop:
        h, w = images.shape[2:]
        images = images[:, :, h * 3 // 8 : h * 7 // 8, w * 2 // 8 : w * 6 // 8]
    if factor > 1:
        images = F.avg_pool2d(images, factor)
    return as_rgb((images + 1) * 127.5)
