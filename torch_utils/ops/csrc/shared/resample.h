// upfirdn2d: which input sample meets which tap. One rule for all devices.
#pragma once

#include "portable.h"

namespace styleloom {

// x [planes, height, width, channels] -> y [planes, out_height, out_width, channels]; channels is 1 where every channel
// is a plane of its own, more where channels come last in memory. Output o reads, for every tap k with
// (o * down + k - pad) divisible by up, input (o * down + k - pad) / up where that exists. Taps correlate: a filter
// that convolves has been flipped before.
struct UpfirdnParams {
  int64_t planes, height, width, channels, out_height, out_width;
  int64_t up_x, up_y, down_x, down_y, pad_x, pad_y;  // pads at the left and the top
  int64_t taps_x, taps_y;
};

template <class T, class Sum>
struct UpfirdnArgs {
  UpfirdnParams p;
  const T* x;
  const Sum* f;  // [taps_y, taps_x], gain included
  T* y;
};

namespace SL_ISA {

SL_HD int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

// The taps of one output position on one axis: tap, tap + up, ... meet inputs first, first + 1, ...
struct TapRun {
  int64_t tap, first, count;
};

SL_HD TapRun taps_of(int64_t out, int64_t up, int64_t down, int64_t pad, int64_t taps, int64_t size) {
  const int64_t offset = out * down - pad;               // of tap 0, in the zero-inserted image
  int64_t first = -floor_div(-offset, up);               // first input at or right of it
  int64_t tap = first * up - offset;
  if (first < 0) {
    tap -= first * up;
    first = 0;
  }
  int64_t count = tap < taps ? (taps - tap + up - 1) / up : 0;
  if (count > size - first) count = size - first;
  return TapRun{tap, first, count < 0 ? 0 : count};
}

// One output element: the plain body, one thread each on a GPU.
template <class T, class Sum>
SL_HD Sum upfirdn_element(const UpfirdnArgs<T, Sum>& a, int64_t plane, int64_t oy, int64_t ox, int64_t channel) {
  const UpfirdnParams& p = a.p;
  const TapRun ry = taps_of(oy, p.up_y, p.down_y, p.pad_y, p.taps_y, p.height);
  const TapRun rx = taps_of(ox, p.up_x, p.down_x, p.pad_x, p.taps_x, p.width);
  Sum total = 0;
  for (int64_t j = 0; j < ry.count; ++j) {
    const T* row = a.x + ((plane * p.height + ry.first + j) * p.width + rx.first) * p.channels + channel;
    const Sum* f = a.f + (ry.tap + j * p.up_y) * p.taps_x + rx.tap;
    for (int64_t i = 0; i < rx.count; ++i) total += f[i * p.up_x] * Sum(row[i * p.channels]);
  }
  return total;
}

}  // namespace SL_ISA
}  // namespace styleloom
