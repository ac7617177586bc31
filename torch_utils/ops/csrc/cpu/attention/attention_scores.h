// Between the products: bias, softmax and its gradient, on the scores of one query, [rows][pitch] with masked lanes
// behind the columns of a row.
#pragma once

#include "attention_rows.h"

namespace styleloom {
namespace SL_ISA {

constexpr double kMasked = -1e30;

template <class T>
SL_HD int64_t score_pitch(const Window& w) {
  return round_up(w.kernel_x, lanes<T>());
}

// One head's bias table (or its gradient) with padded rows, so that a vector may be read at every start.
template <class T>
struct BiasTable {
  T* data;
  int64_t height, width, pitch, dy, dx;

  // A table of zeros, or none.
  BiasTable(Scratch<T>& scratch, const Window& w, bool wanted)
      : data(nullptr), height(2 * w.kernel_y - 1), width(2 * w.kernel_x - 1), pitch(pitch_of(w)),
        dy(w.kernel_y - 1), dx(w.kernel_x - 1) {
    if (!wanted) return;
    data = scratch.take(height * pitch);
    memset(data, 0, height * pitch * sizeof(T));
  }

  static int64_t pitch_of(const Window& w) { return 3 * w.kernel_x + lanes<T>(); }
  static int64_t space(const Window& w) { return (2 * w.kernel_y - 1) * pitch_of(w); }

  void read(const T* table) {
    for (int64_t y = 0; y < height; ++y) memcpy(data + y * pitch, table + y * width, width * sizeof(T));
  }
  void write(T* table) const {
    for (int64_t y = 0; y < height; ++y) memcpy(table + y * width, data + y * pitch, width * sizeof(T));
  }

  // Where the window begins whose first row and column lie (y, x) from the query; null without a table.
  SL_MEMBER T* corner(int64_t y, int64_t x) const {
    return data == nullptr ? nullptr : data + (y + dy) * pitch + x + dx;
  }
};

// scores += bias; masks them. Returns the largest score.
template <class T>
static T add_bias(T* scores, int64_t pitch, int64_t rows, int64_t columns, const T* bias, int64_t bias_pitch) {
  Vec<T> highest = splat(T(kMasked));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t lane = 0; lane < columns; lane += lanes<T>()) {
      Vec<T> s = load(scores + r * pitch + lane);
      if (bias != nullptr) s += load(bias + r * bias_pitch + lane);
      s = lanes_below<T>(columns - lane) ? s : splat(T(kMasked));
      highest = s > highest ? s : highest;
      store(scores + r * pitch + lane, s);
    }
  }
  return max<T>(highest);
}

// scores <- e^(scores - shift); returns their sum. Masked lanes become 0.
template <class T>
static T exponentiate(T* scores, int64_t pitch, int64_t rows, int64_t columns, T shift) {
  Vec<T> total = {};
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t lane = 0; lane < columns; lane += lanes<T>()) {
      Vec<T> p = exp(load(scores + r * pitch + lane) - shift);
      p = lanes_below<T>(columns - lane) ? p : Vec<T>{};
      total += p;
      store(scores + r * pitch + lane, p);
    }
  }
  return sum<T>(total);
}

// Probabilities p = e^(score + bias - lse) and the gradients of the scores, p * (slope - delta), where slope is
// grad_out . v. Rows of the results lie `row_pitch` apart; masked lanes are 0.
template <class T>
static void softmax_gradient(const T* scores, const T* slopes, int64_t pitch, const Window& w, const T* bias,
                             int64_t bias_pitch, T lse, T delta, T* probabilities, T* gradients, int64_t row_pitch) {
  for (int64_t r = 0; r < w.kernel_y; ++r) {
    for (int64_t lane = 0; lane < w.kernel_x; lane += lanes<T>()) {
      const int64_t from = r * pitch + lane, to = r * row_pitch + lane;
      const auto inside = lanes_below<T>(w.kernel_x - lane);
      Vec<T> s = load(scores + from);
      if (bias != nullptr) s += load(bias + r * bias_pitch + lane);
      const Vec<T> p = exp(s - lse);
      store(probabilities + to, inside ? p : Vec<T>{});
      store(gradients + to, inside ? p * (load(slopes + from) - delta) : Vec<T>{});
    }
  }
}

template <class T>
static void add_rows(const T* source, int64_t pitch, int64_t rows, int64_t columns, T* target, int64_t target_pitch) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t lane = 0; lane < columns; lane += lanes<T>()) {
      T* place = target + r * target_pitch + lane;
      store(place, load(place) + load(source + r * pitch + lane));
    }
  }
}

}  // namespace SL_ISA
}  // namespace styleloom
