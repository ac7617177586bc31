// The fused backward pass of neighbourhood attention. Probabilities and gradients of the scores are computed once,
// query row by query row, and kept as long as a key row needs them: a key gathers its gradients from the queries that
// see it.
#pragma once

#include "attention_forward.h"

namespace styleloom {
namespace SL_ISA {

template <class T>
struct BackwardTask {
  const AttentionArgs<T>& args;
  const Window& w;
  const Task t;
  const int64_t pitch, planar, position;  // of a row of scores, of a planar row, of an interleaved position
  const int64_t plane, gradients;         // in a kept row: from window row to window row, and where gradients begin
  const int64_t first_row, last_row;      // query rows that see this task's keys
  RowWindow<T> keys, values, key_rows;    // keys and values planar, and keys interleaved
  RowWindow<T> queries, grads, kept;      // interleaved; kept: probabilities and score gradients [2][kernel_y][plane]
  BiasTable<T> bias, grad_bias;
  T *scores, *slopes;            // [kTogether][kernel_y][pitch]
  int64_t *columns, *seen_rows;  // of `SeenWeights` into `kept`

  BackwardTask(const AttentionArgs<T>& a, const Task& task, Scratch<T> scratch)
      : args(a), w(a.window), t(task), pitch(score_pitch<T>(w)), planar(Planar<T>::space(t.cols.members, w.channels)),
        position(padded<T>(w.channels)), plane(plane_of(w, t.cols.members)), gradients(w.kernel_y * plane),
        first_row(t.rows.first_query(t.first)), last_row(t.rows.last_query(t.last - 1)),
        keys(scratch, w.kernel_y, planar, t.rows.first_key(first_row)),
        values(scratch, w.kernel_y, planar, t.rows.first_key(first_row)),
        key_rows(scratch, w.kernel_y, t.cols.members * position, t.rows.first_key(first_row)),
        queries(scratch, most_seen(w.kernel_y), t.cols.members * position, first_row),
        grads(scratch, most_seen(w.kernel_y), t.cols.members * position, first_row),
        kept(scratch, most_seen(w.kernel_y), 2 * gradients, first_row), bias(scratch, w, a.rpb != nullptr),
        grad_bias(scratch, w, a.rpb != nullptr), scores(scratch.take(kTogether * w.kernel_y * pitch)),
        slopes(scratch.take(kTogether * w.kernel_y * pitch)),
        columns(reinterpret_cast<int64_t*>(scratch.take(t.cols.members * kIndex))),
        seen_rows(reinterpret_cast<int64_t*>(scratch.take(most_seen(w.kernel_y) * kIndex))) {
    if (a.rpb != nullptr) bias.read(a.rpb + t.head * bias.height * bias.width);
    for (int64_t col = 0; col < t.cols.members; ++col) columns[col] = col * pitch - t.cols.first_key(col);
  }

  static constexpr int64_t kIndex = sizeof(int64_t) / sizeof(T);

  // A little more than the scores of a row of queries: powers of two would meet in few sets of the cache.
  static int64_t plane_of(const Window& w, int64_t members) { return members * score_pitch<T>(w) + 16; }

  static int64_t space(const Window& w) {
    const int64_t members = ceil_div(w.width, w.dilation_x), seen = most_seen(w.kernel_y);
    const int64_t planar_row = Planar<T>::space(members, w.channels), row = members * padded<T>(w.channels);
    return 2 * RowWindow<T>::space(w.kernel_y, planar_row) + RowWindow<T>::space(w.kernel_y, row) +
           2 * RowWindow<T>::space(seen, row) + RowWindow<T>::space(seen, 2 * w.kernel_y * plane_of(w, members)) +
           2 * BiasTable<T>::space(w) + 2 * kTogether * w.kernel_y * score_pitch<T>(w) + (members + seen) * kIndex +
           12 * kAlignment;
  }

  void score(int64_t row, int64_t col, int64_t count, T* place) const {
    const int64_t y = t.rows.first_key(row), area = w.kernel_y * pitch;
    const auto products = [&](const RowWindow<T>& own, const RowWindow<T>& others, T* out) {
      for (int64_t i = 0; i < count; ++i) {
        dots(own.row(row) + (col + i) * position, w.channels, others, y, t.cols.first_key(col + i), w.kernel_y,
             w.kernel_x, out + i * area, pitch);
      }
    };
    products(queries, keys, scores);
    products(grads, values, slopes);
    for (int64_t i = 0; i < count; ++i) {
      const T* corner = bias.corner(y - row, t.cols.first_key(col + i) - (col + i));
      T* probabilities = place + (col + i) * pitch;
      softmax_gradient<T>(scores + i * area, slopes + i * area, pitch, w, corner, bias.pitch,
                          *at(args.lse, w, t, row, col + i), *at(args.delta, w, t, row, col + i), probabilities,
                          probabilities + gradients, plane);
    }
  }

  // Gradients of the queries of a row and of the bias.
  void finish_queries(int64_t row, int64_t col, int64_t count) const {
    const int64_t y = t.rows.first_key(row);
    for (int64_t i = col; i < col + count; ++i) {
      const int64_t x = t.cols.first_key(i);
      const T* own = kept.row(row) + gradients + i * pitch;
      if (i + kAhead < t.cols.members) prefetch<1>(at(args.grad_q, w, t, row, i + kAhead), w.channels);
      weighted_sum(TableWeights<T>{own, plane}, key_rows, y, x, w.kernel_y, w.kernel_x, w.channels, T(w.scale),
                   at(args.grad_q, w, t, row, i));
      if (grad_bias.data != nullptr) {
        add_rows(own, plane, w.kernel_y, w.kernel_x, grad_bias.corner(y - row, x - i), grad_bias.pitch);
      }
    }
  }

  void finish_keys(int64_t row) const {
    const int64_t y = t.rows.first_query(row), rows = t.rows.last_query(row) - y + 1;
    for (int64_t r = 0; r < rows; ++r) {
      seen_rows[r] = kept.row(y + r) - kept.data + (row - t.rows.first_key(y + r)) * plane;
    }
    for (int64_t col = 0; col < t.cols.members; ++col) {
      const int64_t x = t.cols.first_query(col), count = t.cols.last_query(col) - x + 1;
      if (col + kAhead < t.cols.members) {
        prefetch<1>(at(args.grad_k, w, t, row, col + kAhead), w.channels);
        prefetch<1>(at(args.grad_v, w, t, row, col + kAhead), w.channels);
      }
      weighted_sum(SeenWeights<T>{kept.data + gradients + col, seen_rows, columns + x}, queries, y, x, rows, count,
                   w.channels, T(w.scale), at(args.grad_k, w, t, row, col));
      weighted_sum(SeenWeights<T>{kept.data + col, seen_rows, columns + x}, grads, y, x, rows, count, w.channels, T(1),
                   at(args.grad_v, w, t, row, col));
    }
  }

  // Query rows beside the band belong to other tasks: here they only serve the keys of the band.
  void run() {
    int64_t key_row = t.first;
    for (int64_t row = first_row; row <= last_row; ++row) {
      const int64_t top = t.rows.first_key(row), bottom = top + w.kernel_y, seen = t.rows.first_query(key_row);
      keys.cover(top, bottom, [&](int64_t r, T* place) { pack_planar(args.k, w, t, r, T(w.scale), place); });
      values.cover(top, bottom, [&](int64_t r, T* place) { pack_planar(args.v, w, t, r, T(1), place); });
      key_rows.cover(top, bottom, [&](int64_t r, T* place) { pack_interleaved(args.k, w, t, r, place); });
      queries.cover(seen, row + 1, [&](int64_t r, T* place) { pack_interleaved(args.q, w, t, r, place); });
      grads.cover(seen, row + 1, [&](int64_t r, T* place) { pack_interleaved(args.grad_out, w, t, r, place); });
      kept.cover(seen, row + 1, [&](int64_t r, T* place) {
        for_columns(t, [&](int64_t col, int64_t count) { score(r, col, count, place); });
      });
      if (t.first <= row && row < t.last) {
        for_columns(t, [&](int64_t col, int64_t count) { finish_queries(row, col, count); });
      }
      for (; key_row < t.last && t.rows.last_query(key_row) <= row; ++key_row) finish_keys(key_row);
    }
  }
};

template <class T>
static void backward(const AttentionArgs<T>& args, int64_t begin, int64_t end, T* memory) {
  const Window& w = args.window;
  for (int64_t index = begin; index < end; ++index) {
    const Task t = task_at(w, index);
    T* table = args.grad_rpb == nullptr ? nullptr : args.grad_rpb + index * (2 * w.kernel_y - 1) * (2 * w.kernel_x - 1);
    if (t.first == t.last) {
      if (table != nullptr) memset(table, 0, (2 * w.kernel_y - 1) * (2 * w.kernel_x - 1) * sizeof(T));
      continue;
    }
    BackwardTask<T> task(args, t, Scratch<T>{memory});
    task.run();
    if (table != nullptr) task.grad_bias.write(table);
  }
}

}  // namespace SL_ISA
}  // namespace styleloom
