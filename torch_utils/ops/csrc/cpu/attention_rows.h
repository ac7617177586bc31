// Rows of one dilation group, packed: strides of a map are too long, and often powers of two, for the processor's caches.
#pragma once

#include <string.h>

#include "../shared/window.h"
#include "attention_tasks.h"
#include "vector.h"

namespace styleloom {
namespace SL_ISA {

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
  t.first = smaller(band * band_rows(w), t.rows.members);
  t.last = smaller(t.first + band_rows(w), t.rows.members);
  return t;
}

template <class T>
SL_HD T* at(const View<T>& view, const Window& w, const Task& t, int64_t row, int64_t col) {
  return view.data + t.n * view.n + (t.group_y + w.dilation_y * row) * view.y +
         (t.group_x + w.dilation_x * col) * view.x + t.head * view.head;
}

// Hands out cache-aligned pieces of one thread's scratch memory.
constexpr int64_t kAlignment = 64;
template <class T>
struct Scratch {
  T* next;
  SL_MEMBER T* take(int64_t count) {
    T* piece = next;
    next += round_up(count, kAlignment / sizeof(T));
    return piece;
  }
};

// On each axis a key is seen by K queries, and by up to K/2 more for every border that is near.
SL_HD int64_t most_seen(int64_t kernel) { return kernel + 2 * (kernel / 2); }

// The rows that a downward moving window needs. They lie one behind the other, so that kernels may step from row to row;
// when the window reaches the end of the memory, the rows still needed move to its start.
template <class T>
struct RowWindow {
  static constexpr int64_t kSpare = 6;  // rows beyond the window, so that moves are few
  T* data;
  int64_t row_pitch, capacity, first, last;  // rows [first, last) are here

  RowWindow(Scratch<T>& scratch, int64_t most_rows, int64_t pitch, int64_t first_row)
      : row_pitch(pitch), capacity(most_rows + kSpare), first(first_row), last(first_row) {
    data = scratch.take(space(most_rows, pitch));
  }

  static int64_t space(int64_t most_rows, int64_t pitch) { return (most_rows + kSpare) * pitch; }

  SL_MEMBER T* row(int64_t index) const { return data + (index - first) * row_pitch; }

  // Rows above `top` may go; `fill(row, place)` writes those below that are missing up to `bottom`.
  template <class F>
  SL_MEMBER void cover(int64_t top, int64_t bottom, F&& fill) {
    if (bottom - first > capacity) {
      memmove(data, row(top), (last - top) * row_pitch * sizeof(T));
      first = top;
    }
    for (; last < bottom; ++last) fill(last, row(last));
  }
};

// Asks for the memory of a position that a loop will reach some steps later: positions lie too far apart for the
// processor to see the pattern.
constexpr int64_t kAhead = 16;
template <int write, class T>
SL_HD void prefetch(const T* place, int64_t channels) {
  const char* bytes = reinterpret_cast<const char*>(place);
  for (int64_t i = 0; i < channels * int64_t(sizeof(T)); i += 64) __builtin_prefetch(bytes + i, write);
}

template <class T>
SL_HD int64_t padded(int64_t channels) {
  return round_up(channels, lanes<T>());
}

// Distance of the channels of a planar row: a vector may start at every column.
template <class T>
SL_HD int64_t planar_pitch(int64_t columns) {
  return round_up(columns, lanes<T>()) + lanes<T>();
}

// One row of a group, channel by channel: [channel][column], scaled, zeros behind the last column.
template <class T>
static void pack_planar(const View<const T>& view, const Window& w, const Task& t, int64_t row, T scale, T* target) {
  const int64_t pitch = planar_pitch<T>(t.cols.members), columns = t.cols.members, step = w.dilation_x * view.x;
  const T* source = at(view, w, t, row, 0);
  const int64_t blocks = columns / lanes<T>() * lanes<T>(), whole = w.channels / lanes<T>() * lanes<T>();
  for (int64_t col = 0; col < blocks; col += lanes<T>()) {
    for (int64_t i = col + kAhead; i < smaller(col + kAhead + lanes<T>(), columns); ++i) {
      prefetch<0>(source + i * step, w.channels);
    }
    for (int64_t c = 0; c < whole; c += lanes<T>()) {
      Vec<T> block[lanes<T>()];
      for (int64_t i = 0; i < lanes<T>(); ++i) block[i] = load(source + (col + i) * step + c);
      transpose<T>(block);
      for (int64_t i = 0; i < lanes<T>(); ++i) store(target + (c + i) * pitch + col, scale * block[i]);
    }
    for (int64_t c = whole; c < w.channels; ++c) {
      for (int64_t i = col; i < col + lanes<T>(); ++i) target[c * pitch + i] = scale * source[i * step + c];
    }
  }
  for (int64_t c = 0; c < w.channels; ++c) {
    for (int64_t i = blocks; i < pitch; ++i) target[c * pitch + i] = i < columns ? scale * source[i * step + c] : T(0);
  }
}

// One row of a group, position by position: [column][channel], zeros behind the last channel.
template <class T>
static void pack_interleaved(const View<const T>& view, const Window& w, const Task& t, int64_t row, T* target) {
  const int64_t pitch = padded<T>(w.channels), step = w.dilation_x * view.x;
  const T* source = at(view, w, t, row, 0);
  for (int64_t col = 0; col < t.cols.members; ++col, source += step, target += pitch) {
    if (col + kAhead < t.cols.members) prefetch<0>(source + kAhead * step, w.channels);
    int64_t c = 0;
    for (; c + lanes<T>() <= w.channels; c += lanes<T>()) store(target + c, load(source + c));
    for (; c < pitch; ++c) target[c] = c < w.channels ? source[c] : T(0);
  }
}

}  // namespace SL_ISA
}  // namespace styleloom
