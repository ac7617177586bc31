"""upfirdn2d in plain PyTorch: a sum of shifted slices per output phase, the zero-inserted image never exists."""

from math import gcd

import torch
import torch.nn.functional as F


def output_size(size: int, up: int, down: int, pad: tuple[int, int], taps: int) -> int:
    """Length of one axis after upsampling, padding, filtering (valid part) and decimation."""
    return (size * up + pad[0] + pad[1] - taps) // down + 1


def phase_taps(taps: int, up: int, down: int, pad0: int) -> list[list[tuple[int, int]]]:
    """For every output phase of one axis, the (tap, first input position) pairs that fall on a real sample.

    Output p + t * period reads input `first + t * stride`, with period = up / gcd and stride = down / gcd.
    """
    period = up // gcd(up, down)
    table = []
    for phase in range(period):
        offsets = [(tap, phase * down + tap - pad0) for tap in range(taps)]
        table.append([(tap, offset // up) for tap, offset in offsets if offset % up == 0])
    return table


def _pass(
    x: torch.Tensor, f: torch.Tensor, up: tuple[int, int], down: tuple[int, int], pad: tuple[int, int, int, int]
) -> torch.Tensor:
    """One pass with a 2-D filter that correlates. x [N, C, H, W], f [fh, fw], up and down (x, y)."""
    (ux, uy), (dx, dy), (fh, fw) = up, down, f.shape
    out_w = output_size(x.shape[3], ux, dx, pad[:2], fw)
    out_h = output_size(x.shape[2], uy, dy, pad[2:], fh)
    cols, rows = phase_taps(fw, ux, dx, pad[0]), phase_taps(fh, uy, dy, pad[2])
    stride_x, stride_y = dx // gcd(ux, dx), dy // gcd(uy, dy)
    count_x, count_y = -(-out_w // len(cols)), -(-out_h // len(rows))

    def border(firsts: list[int], count: int, stride: int, size: int) -> tuple[int, int]:
        return max(0, -min(firsts, default=0)), max(0, max(firsts, default=0) + (count - 1) * stride + 1 - size)

    left, right = border([first for phase in cols for _, first in phase], count_x, stride_x, x.shape[3])
    top, bottom = border([first for phase in rows for _, first in phase], count_y, stride_y, x.shape[2])
    padded = F.pad(x, [left, right, top, bottom])

    def phase_sum(row: list[tuple[int, int]], col: list[tuple[int, int]]) -> torch.Tensor:
        # An empty sum of x, not a constant: a phase that meets no tap still belongs to the graph.
        total = x[..., :0].sum().expand([x.shape[0], x.shape[1], count_y, count_x])
        for tap_y, y0 in row:
            for tap_x, x0 in col:
                rows_of_tap = padded[:, :, y0 + top : y0 + top + (count_y - 1) * stride_y + 1 : stride_y]
                total = (
                    total
                    + f[tap_y, tap_x]
                    * rows_of_tap[..., x0 + left : x0 + left + (count_x - 1) * stride_x + 1 : stride_x]
                )
        return total

    if len(rows) == len(cols) == 1:
        return phase_sum(rows[0], cols[0])
    phases = torch.stack([torch.stack([phase_sum(row, col) for col in cols], -1) for row in rows], 3)
    y = phases.reshape(x.shape[0], x.shape[1], count_y * len(rows), count_x * len(cols))
    return y[:, :, :out_h, :out_w]


def upfirdn2d(
    x: torch.Tensor,
    f: torch.Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip_filter: bool,
    gain: float,
) -> torch.Tensor:
    """Polyphase reference; a 1-D filter runs as two passes. See `torch_utils.ops.upfirdn2d.upfirdn2d`."""
    f = f.to(x.dtype)
    if not flip_filter:
        f = f.flip(list(range(f.ndim)))
    if f.ndim == 2:
        return _pass(x, f * gain, up, down, padding)
    x = _pass(x, (f * gain)[None, :], (up[0], 1), (down[0], 1), (*padding[:2], 0, 0))
    return _pass(x, f[:, None], (1, up[1]), (1, down[1]), (0, 0, *padding[2:]))
