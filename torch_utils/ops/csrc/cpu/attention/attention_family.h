// QK, AV and AV^T on the CPU: the products alone, with scores and weights in memory.
#pragma once

#include "attention_forward.h"

namespace styleloom {
namespace SL_ISA {

// The most that one of these needs.
template <class T>
static int64_t family_space(const Window& w) {
  const int64_t columns = ceil_div(w.width, w.dilation_x), seen = most_seen(w.kernel_y);
  const int64_t index = sizeof(int64_t) / sizeof(T);
  return RowWindow<T>::space(w.kernel_y, Planar<T>::space(columns, w.channels)) +
         RowWindow<T>::space(seen, columns * padded<T>(w.channels)) + w.kernel_y * score_pitch<T>(w) +
         (columns + seen) * index + 5 * kAlignment;
}

// scores[i][j] = q_i . k_j over the window of i.
template <class T>
static void qk(const AttentionArgs<T>& args, int64_t begin, int64_t end, T* memory) {
  const Window& w = args.window;
  for_tasks(w, begin, end, [&](const Task& t) {
    Scratch<T> scratch{memory};
    const int64_t pitch = score_pitch<T>(w);
    RowWindow<T> keys(scratch, w.kernel_y, Planar<T>::space(t.cols.members, w.channels), t.rows.first_key(t.first));
    T* scores = scratch.take(w.kernel_y * pitch);
    for (int64_t row = t.first; row < t.last; ++row) {
      const int64_t top = t.rows.first_key(row);
      keys.cover(top, top + w.kernel_y, [&](int64_t r, T* place) { pack_planar(args.k, w, t, r, T(1), place); });
      for (int64_t col = 0; col < t.cols.members; ++col) {
        dots<T>(at(args.q, w, t, row, col), w.channels, keys, top, t.cols.first_key(col), w.kernel_y, w.kernel_x,
                scores, pitch);
        T* target = at(args.scores, w, t, row, col);
        for (int64_t r = 0; r < w.kernel_y; ++r) {
          memcpy(target + r * w.kernel_x, scores + r * pitch, w.kernel_x * sizeof(T));
        }
      }
    }
  });
}

// out_i = sum over the window of i of weights[i][j] v_j.
template <class T>
static void av(const AttentionArgs<T>& args, int64_t begin, int64_t end, T* memory) {
  const Window& w = args.window;
  for_tasks(w, begin, end, [&](const Task& t) {
    Scratch<T> scratch{memory};
    RowWindow<T> values(scratch, w.kernel_y, t.cols.members * padded<T>(w.channels), t.rows.first_key(t.first));
    for (int64_t row = t.first; row < t.last; ++row) {
      const int64_t top = t.rows.first_key(row);
      values.cover(top, top + w.kernel_y, [&](int64_t r, T* place) { pack_interleaved(args.v, w, t, r, place); });
      for (int64_t col = 0; col < t.cols.members; ++col) {
        weighted_sum(TableWeights<T>{at(args.weights, w, t, row, col), w.kernel_x}, values, top, t.cols.first_key(col),
                     w.kernel_y, w.kernel_x, w.channels, T(1), at(args.out, w, t, row, col));
      }
    }
  });
}

// The transpose of `av`: out_j = sum over the queries i that see j of weights[i][j] v_i.
template <class T>
static void avt(const AttentionArgs<T>& args, int64_t begin, int64_t end, T* memory) {
  const Window& w = args.window;
  constexpr int64_t kIndex = sizeof(int64_t) / sizeof(T);
  for_tasks(w, begin, end, [&](const Task& t) {
    Scratch<T> scratch{memory};
    const int64_t seen = most_seen(w.kernel_y), step_y = w.dilation_y * args.weights.y;
    RowWindow<T> values(scratch, seen, t.cols.members * padded<T>(w.channels), t.rows.first_query(t.first));
    int64_t* columns = reinterpret_cast<int64_t*>(scratch.take(t.cols.members * kIndex));
    int64_t* rows = reinterpret_cast<int64_t*>(scratch.take(seen * kIndex));
    for (int64_t x = 0; x < t.cols.members; ++x) columns[x] = x * w.dilation_x * args.weights.x - t.cols.first_key(x);
    for (int64_t row = t.first; row < t.last; ++row) {
      const int64_t y = t.rows.first_query(row), count = t.rows.last_query(row) - y + 1;
      values.cover(y, y + count, [&](int64_t r, T* place) { pack_interleaved(args.v, w, t, r, place); });
      for (int64_t r = 0; r < count; ++r) rows[r] = (y + r) * step_y + (row - t.rows.first_key(y + r)) * w.kernel_x;
      for (int64_t col = 0; col < t.cols.members; ++col) {
        const int64_t x = t.cols.first_query(col);
        weighted_sum(SeenWeights<T>{at(args.weights, w, t, 0, 0) + col, rows, columns + x}, values, y, x, count,
                     t.cols.last_query(col) - x + 1, w.channels, T(1), at(args.out, w, t, row, col));
      }
    }
  });
}

}  // namespace SL_ISA
}  // namespace styleloom
