// The fused forward pass of neighbourhood attention.
#pragma once

#include "attention_products.h"
#include "attention_scores.h"

namespace styleloom {
namespace SL_ISA {

// Queries that go through each stage together. The stages of one alone are a chain of dependent steps; those of several
// overlap in the processor.
constexpr int64_t kTogether = 8;

// Calls f(first column, count) for the positions of a row, at most kTogether at a time.
template <class F>
static inline void for_columns(const Task& t, F&& f) {
  for (int64_t col = 0; col < t.cols.members; col += kTogether) f(col, smaller(kTogether, t.cols.members - col));
}

// Calls f(task) for tasks [begin, end) that have rows.
template <class F>
static inline void for_tasks(const Window& w, int64_t begin, int64_t end, F&& f) {
  for (int64_t index = begin; index < end; ++index) {
    const Task t = task_at(w, index);
    if (t.first < t.last) f(t);
  }
}

template <class T>
struct ForwardTask {
  const AttentionArgs<T>& args;
  const Window& w;
  const Task t;
  const int64_t pitch;  // of a row of scores
  RowWindow<T> keys, values;  // keys planar, values interleaved
  BiasTable<T> bias;
  T *queries, *scores;  // a row, interleaved; [kTogether][kernel_y][pitch]

  ForwardTask(const AttentionArgs<T>& a, const Task& task, Scratch<T> scratch)
      : args(a), w(a.window), t(task), pitch(score_pitch<T>(w)),
        keys(scratch, w.kernel_y, Planar<T>::space(t.cols.members, w.channels), t.rows.first_key(t.first)),
        values(scratch, w.kernel_y, t.cols.members * padded<T>(w.channels), t.rows.first_key(t.first)),
        bias(scratch, w, a.rpb != nullptr), queries(scratch.take(t.cols.members * padded<T>(w.channels))),
        scores(scratch.take(kTogether * w.kernel_y * pitch)) {
    if (a.rpb != nullptr) bias.read(a.rpb + t.head * bias.height * bias.width);
  }

  static int64_t space(const Window& w) {
    const int64_t columns = ceil_div(w.width, w.dilation_x), row = columns * padded<T>(w.channels);
    return RowWindow<T>::space(w.kernel_y, Planar<T>::space(columns, w.channels)) +
           RowWindow<T>::space(w.kernel_y, row) + BiasTable<T>::space(w) + row +
           kTogether * w.kernel_y * score_pitch<T>(w) + 5 * kAlignment;
  }

  void attend(int64_t row, int64_t col, int64_t count) const {
    const int64_t y = t.rows.first_key(row), area = w.kernel_y * pitch;
    for (int64_t i = 0; i < count; ++i) {
      if (col + kAhead + i < t.cols.members) prefetch<1>(at(args.out, w, t, row, col + kAhead + i), w.channels);
      dots(queries + (col + i) * padded<T>(w.channels), w.channels, keys, y, t.cols.first_key(col + i),
           w.kernel_y, w.kernel_x, scores + i * area, pitch);
    }
    T total[kTogether];
    for (int64_t i = 0; i < count; ++i) {
      const T* corner = bias.corner(y - row, t.cols.first_key(col + i) - (col + i));
      const T highest = add_bias<T>(scores + i * area, pitch, w.kernel_y, w.kernel_x, corner, bias.pitch);
      total[i] = exponentiate(scores + i * area, pitch, w.kernel_y, w.kernel_x, highest);
      *at(args.lse, w, t, row, col + i) = highest + T(::log(total[i]));
    }
    for (int64_t i = 0; i < count; ++i) {
      weighted_sum(TableWeights<T>{scores + i * area, pitch}, values, y, t.cols.first_key(col + i), w.kernel_y,
                   w.kernel_x, w.channels, T(1) / total[i], at(args.out, w, t, row, col + i));
    }
  }

  void run() {
    for (int64_t row = t.first; row < t.last; ++row) {
      const int64_t top = t.rows.first_key(row), bottom = top + w.kernel_y;
      keys.cover(top, bottom, [&](int64_t r, T* place) { pack_planar(args.k, w, t, r, T(w.scale), place); });
      values.cover(top, bottom, [&](int64_t r, T* place) { pack_interleaved(args.v, w, t, r, place); });
      pack_interleaved(args.q, w, t, row, queries);
      for_columns(t, [&](int64_t col, int64_t count) { attend(row, col, count); });
    }
  }
};

template <class T>
static void forward(const AttentionArgs<T>& args, int64_t begin, int64_t end, T* memory) {
  for_tasks(args.window, begin, end, [&](const Task& t) { ForwardTask<T>(args, t, Scratch<T>{memory}).run(); });
}

}  // namespace SL_ISA
}  // namespace styleloom
