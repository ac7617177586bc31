// The two inner products of attention over packed keys, and the packing.
#pragma once

#include "../shared/attention_args.h"
#include "../shared/window.h"
#include "vector.h"

namespace styleloom {
namespace SL_ISA {

constexpr int64_t kRowBlock = 8;    // accumulators of `dots`
constexpr int64_t kVectorBlock = 4; // vectors of channels that `weighted_sum` keeps, twice

SL_HD int64_t round_up(int64_t n, int64_t step) { return ceil_div(n, step) * step; }

// One task: rows [first, last) of the group of positions (group_y + dilation_y * i, group_x + dilation_x * j).
struct Task {
  int64_t n, head, group_y, group_x, first, last;
  Axis rows, cols;
};

SL_HD Task task_at(const Window& w, int64_t index) {
  Task t;
  const int64_t band = index % bands(w);
  index /= bands(w);
  t.group_x = index % w.dilation_x;
  index /= w.dilation_x;
  t.group_y = index % w.dilation_y;
  index /= w.dilation_y;
  t.head = index % w.heads;
  t.n = index / w.heads;
  t.rows = axis_of_group(w.height, w.kernel_y, w.dilation_y, t.group_y);
  t.cols = axis_of_group(w.width, w.kernel_x, w.dilation_x, t.group_x);
  t.first = band * band_rows(w);
  t.last = smaller(t.first + band_rows(w), t.rows.members);
  return t;
}

template <class T>
SL_HD T* at(const View<T>& view, const Window& w, const Task& t, int64_t row, int64_t col) {
  return view.data + t.n * view.n + (t.group_y + w.dilation_y * row) * view.y +
         (t.group_x + w.dilation_x * col) * view.x + t.head * view.head;
}

// Hands out pieces of one thread's scratch memory.
template <class T>
struct Scratch {
  T* next;
  SL_MEMBER T* take(int64_t count) {
    T* piece = next;
    next += round_up(count, 64 / sizeof(T));
    return piece;
  }
};

// Rows of a group, channel by channel: [row][channel][column], columns padded so that a vector may start anywhere.
template <class T>
struct Planar {
  T* data;
  int64_t first_row, pitch, row_pitch;
  SL_MEMBER const T* at(int64_t row, int64_t col) const { return data + (row - first_row) * row_pitch + col; }
};

// Rows of a group, position by position: [row][column][channel], channels padded to whole vectors.
template <class T>
struct Interleaved {
  T* data;
  int64_t first_row, pitch, row_pitch;
  SL_MEMBER const T* at(int64_t row, int64_t col) const {
    return data + (row - first_row) * row_pitch + col * pitch;
  }
};

// Asks for the memory of a position that a copy loop will reach some steps later: positions lie too far apart for the
// processor to see the pattern.
constexpr int64_t kAhead = 16;
template <int write, class T>
SL_HD void prefetch(const T* place, int64_t channels) {
  const char* bytes = reinterpret_cast<const char*>(place);
  for (int64_t i = 0; i < channels * int64_t(sizeof(T)); i += 64) __builtin_prefetch(bytes + i, write);
}

template <class T>
SL_HD int64_t planar_pitch(int64_t columns) {
  return round_up(columns, lanes<T>()) + lanes<T>();
}

template <class T>
static Planar<T> pack_planar(Scratch<T>& scratch, const View<const T>& view, const Window& w, const Task& t,
                             int64_t channels, int64_t first_row, int64_t last_row) {
  const int64_t pitch = planar_pitch<T>(t.cols.members), columns = t.cols.members;
  Planar<T> packed{nullptr, first_row, pitch, channels * pitch};
  packed.data = scratch.take((last_row - first_row) * packed.row_pitch);
  const int64_t step = w.dilation_x * view.x;
  for (int64_t row = first_row; row < last_row; ++row) {
    const T* source = at(view, w, t, row, 0);
    T* target = packed.data + (row - first_row) * packed.row_pitch;
    int64_t col = 0;
    for (; col + lanes<T>() <= columns; col += lanes<T>()) {
      for (int64_t i = 0; i < lanes<T>() && col + kAhead + i < columns; ++i) {
        prefetch<0>(source + (col + kAhead + i) * step, channels);
      }
      for (int64_t c = 0; c < channels; ++c) {
        Vec<T> v;
        for (int64_t i = 0; i < lanes<T>(); ++i) v[i] = source[(col + i) * step + c];
        store(target + c * pitch + col, v);
      }
    }
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t i = col; i < pitch; ++i) target[c * pitch + i] = i < columns ? source[i * step + c] : T(0);
    }
  }
  return packed;
}

// Copies rows [first_row, last_row) of a group into `target`, scaled.
template <class T>
static void gather_rows(const View<const T>& view, const Window& w, const Task& t, int64_t channels, int64_t first_row,
                        int64_t last_row, T scale, T* target) {
  const int64_t pitch = round_up(channels, lanes<T>()), step = w.dilation_x * view.x;
  for (int64_t row = first_row; row < last_row; ++row) {
    const T* source = at(view, w, t, row, 0);
    for (int64_t col = 0; col < t.cols.members; ++col, source += step, target += pitch) {
      if (col + kAhead < t.cols.members) prefetch<0>(source + kAhead * step, channels);
      for (int64_t c = 0; c < channels; ++c) target[c] = scale * source[c];
      for (int64_t c = channels; c < pitch; ++c) target[c] = T(0);
    }
  }
}

// Copies one row of results to its place, scaled.
template <class T>
static void scatter_row(const T* source, const View<T>& view, const Window& w, const Task& t, int64_t row, T scale) {
  const int64_t pitch = round_up(w.channels, lanes<T>()), step = w.dilation_x * view.x;
  T* target = at(view, w, t, row, 0);
  for (int64_t col = 0; col < t.cols.members; ++col, source += pitch, target += step) {
    if (col + kAhead < t.cols.members) prefetch<1>(target + kAhead * step, w.channels);
    for (int64_t c = 0; c < w.channels; ++c) target[c] = scale * source[c];
  }
}

template <class T>
static Interleaved<T> pack_interleaved(Scratch<T>& scratch, const View<const T>& view, const Window& w, const Task& t,
                                       int64_t channels, int64_t first_row, int64_t last_row) {
  const int64_t pitch = round_up(channels, lanes<T>());
  const Interleaved<T> packed{scratch.take((last_row - first_row) * pitch * t.cols.members), first_row, pitch,
                              pitch * t.cols.members};
  gather_rows(view, w, t, channels, first_row, last_row, T(1), packed.data);
  return packed;
}

// out[r][lane] = sum over channels of a[c] * planes[r][c][lane], R rows at a time in registers.
template <class T, int R>
static inline void dots_block(const T* a, int64_t channels, const T* planes, int64_t pitch, int64_t row_pitch, T* out,
                              int64_t out_pitch) {
  Vec<T> total[R] = {};
  for (int64_t c = 0; c < channels; ++c) {
    const Vec<T> factor = splat(a[c]);
    const T* plane = planes + c * pitch;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) total[r] += factor * load(plane + r * row_pitch);
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) store(out + r * out_pitch, total[r]);
}

// Inner products of a[channels] with `rows` rows of `columns` packed positions -> out [rows][out_pitch].
template <class T>
static void dots(const T* a, int64_t channels, const Planar<T>& packed, int64_t row, int64_t col, int64_t rows,
                 int64_t columns, T* out, int64_t out_pitch) {
  for (int64_t lane = 0; lane < columns; lane += lanes<T>()) {
    for (int64_t r = 0; r < rows; r += kRowBlock) {
      const T* planes = packed.at(row + r, col + lane);
      T* target = out + r * out_pitch + lane;
#define SL_ROWS(R)                                                                            \
  case R:                                                                                     \
    dots_block<T, R>(a, channels, planes, packed.pitch, packed.row_pitch, target, out_pitch); \
    break;
      switch (smaller(rows - r, kRowBlock)) {
        SL_ROWS(1) SL_ROWS(2) SL_ROWS(3) SL_ROWS(4) SL_ROWS(5) SL_ROWS(6) SL_ROWS(7) SL_ROWS(8)
      }
#undef SL_ROWS
    }
  }
}

// out[B vectors of channels] = sum over positions of weights[r][j] * values[r][j]. Even and odd positions have their
// own sums: twice the independent additions, which hides their latency.
template <class T, int B>
static inline void weighted_block(const T* weights, int64_t weight_pitch, int64_t rows, int64_t columns,
                                  const T* values, int64_t pitch, int64_t row_pitch, T* out) {
  Vec<T> even[B] = {}, odd[B] = {};
  for (int64_t r = 0; r < rows; ++r) {
    const T* weight = weights + r * weight_pitch;
    const T* value = values + r * row_pitch;
    int64_t j = 0;
    for (; j + 2 <= columns; j += 2, value += 2 * pitch) {
      const Vec<T> w0 = splat(weight[j]), w1 = splat(weight[j + 1]);
#pragma GCC unroll 4
      for (int b = 0; b < B; ++b) {
        even[b] += w0 * load(value + b * lanes<T>());
        odd[b] += w1 * load(value + pitch + b * lanes<T>());
      }
    }
    if (j < columns) {
      const Vec<T> w0 = splat(weight[j]);
#pragma GCC unroll 4
      for (int b = 0; b < B; ++b) even[b] += w0 * load(value + b * lanes<T>());
    }
  }
#pragma GCC unroll 4
  for (int b = 0; b < B; ++b) store(out + b * lanes<T>(), even[b] + odd[b]);
}

// out[packed.pitch] = weighted sum of `rows` x `columns` packed positions, scaled.
template <class T>
static void weighted_sum(const T* weights, int64_t weight_pitch, const Interleaved<T>& packed, int64_t row,
                         int64_t col, int64_t rows, int64_t columns, T* out) {
  const T* values = packed.at(row, col);
  for (int64_t c = 0; c < packed.pitch; c += kVectorBlock * lanes<T>()) {
#define SL_BLOCK(B)                                                                                               \
  case B:                                                                                                         \
    weighted_block<T, B>(weights, weight_pitch, rows, columns, values + c, packed.pitch, packed.row_pitch, out + c); \
    break;
    switch (smaller((packed.pitch - c) / lanes<T>(), kVectorBlock)) { SL_BLOCK(1) SL_BLOCK(2) SL_BLOCK(3) SL_BLOCK(4) }
#undef SL_BLOCK
  }
}

}  // namespace SL_ISA
}  // namespace styleloom
