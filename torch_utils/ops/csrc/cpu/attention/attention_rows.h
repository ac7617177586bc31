// Rows of one dilation group, packed: the strides of a map are too long for the processor's caches, and often powers of
// two.
#pragma once

#include <string.h>

#include "../../shared/window.h"
#include "attention_tasks.h"
#include "../vector.h"

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

// The rows that a downward moving window needs. They lie one behind the other, so that kernels may step from row to
// row; when the window reaches the end of the memory, the rows still needed move to its start.
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

// A planar row: [block][channel][2 vectors]. Block b holds the columns from b vectors on, so that a vector that starts
// at any column lies within one block, and never across two cache lines; every column stands in two blocks.
template <class T>
struct Planar {
  static constexpr int64_t kPitch = 2 * lanes<T>();  // from channel to channel

  // Elements of a row. A little more than needed: rows a power of two apart would meet in few sets of the cache.
  SL_MEMBER static int64_t space(int64_t columns, int64_t channels) {
    return (ceil_div(columns, lanes<T>()) * channels + 4) * kPitch;
  }
  SL_MEMBER static int64_t place(int64_t column, int64_t channels) {
    return column / lanes<T>() * channels * kPitch + column % lanes<T>();
  }
};

// A vector of channels of each of a vector of positions, transposed: zeros where positions or channels end before.
template <class T>
SL_HD void load_transposed(const T* source, int64_t step, int64_t positions, int64_t channels, Vec<T>* block) {
  if (positions >= lanes<T>() && channels >= lanes<T>()) {
    for (int64_t i = 0; i < lanes<T>(); ++i) block[i] = load(source + i * step);
  } else {
    for (int64_t i = 0; i < lanes<T>(); ++i) {
      block[i] = Vec<T>{};
      if (i >= positions) continue;
      for (int64_t c = 0; c < smaller(channels, lanes<T>()); ++c) block[i][c] = source[i * step + c];
    }
  }
  transpose<T>(block);
}

// Packs one row of a group, scaled, zeros behind the last column.
template <class T>
static void pack_planar(const View<const T>& view, const Window& w, const Task& t, int64_t row, T scale, T* target) {
  constexpr int64_t kPitch = Planar<T>::kPitch;
  const int64_t columns = t.cols.members, step = w.dilation_x * view.x, channels = w.channels;
  const T* source = at(view, w, t, row, 0);
  for (int64_t col = 0; col < columns + lanes<T>(); col += lanes<T>(), source += lanes<T>() * step) {
    T* own = target + col / lanes<T>() * channels * kPitch;  // this vector of columns begins its own block,
    T* other = own - channels * kPitch + lanes<T>();         // and ends the block before
    const int64_t soon = smaller(kAhead + lanes<T>(), columns - col);
    for (int64_t i = kAhead; i < soon; ++i) prefetch<0>(source + i * step, channels);
    for (int64_t c = 0; c < channels; c += lanes<T>()) {
      Vec<T> block[lanes<T>()];
      load_transposed(source + c, step, columns - col, channels - c, block);
      for (int64_t k = 0; k < smaller(channels - c, lanes<T>()); ++k) {
        const Vec<T> scaled = scale * block[k];
        if (col < columns) store(own + (c + k) * kPitch, scaled);
        if (col > 0) store(other + (c + k) * kPitch, scaled);
      }
    }
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
