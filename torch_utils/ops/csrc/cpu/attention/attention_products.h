// The two inner products of attention: a query with the packed keys of its window, and weights with packed values.
#pragma once

#include "attention_rows.h"

namespace styleloom {
namespace SL_ISA {

constexpr int64_t kRowBlock = 8;     // accumulators of `dots`
constexpr int64_t kVectorBlock = 4;  // vectors of channels that `weighted_sum` keeps, twice

// out[r][lane] = sum over channels of a[c] * planes[r][c][lane], R rows at a time in registers.
template <class T, int R>
static inline void dots_block(const T* a, int64_t channels, const T* planes, int64_t row_pitch, T* out,
                              int64_t out_pitch) {
  Vec<T> total[R] = {};
  for (int64_t c = 0; c < channels; ++c) {
    const Vec<T> factor = splat(a[c]);
    const T* plane = planes + c * Planar<T>::kPitch;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) total[r] += factor * load(plane + r * row_pitch);
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) store(out + r * out_pitch, total[r]);
}

// Inner products of a[channels] with the window of `rows` x `columns` positions at (row, col) of planar rows
// -> out [rows][out_pitch].
template <class T>
static void dots(const T* a, int64_t channels, const RowWindow<T>& planar, int64_t row, int64_t col, int64_t rows,
                 int64_t columns, T* out, int64_t out_pitch) {
  for (int64_t lane = 0; lane < columns; lane += lanes<T>()) {
    const int64_t place = Planar<T>::place(col + lane, channels);
    for (int64_t r = 0; r < rows; r += kRowBlock) {
      const T* planes = planar.row(row + r) + place;
      T* target = out + r * out_pitch + lane;
#define SL_ROWS(R) \
  case R: dots_block<T, R>(a, channels, planes, planar.row_pitch, target, out_pitch); break;
      switch (smaller(rows - r, kRowBlock)) {
        SL_ROWS(1) SL_ROWS(2) SL_ROWS(3) SL_ROWS(4) SL_ROWS(5) SL_ROWS(6) SL_ROWS(7) SL_ROWS(8)
      }
#undef SL_ROWS
    }
  }
}

// Weights of a query on its window: rows of a table.
template <class T>
struct TableWeights {
  const T* table;
  int64_t pitch;
  SL_MEMBER const T* row(int64_t r) const { return table + r * pitch; }
  SL_MEMBER T in_row(const T* row, int64_t j) const { return row[j]; }
};

// Weights of the queries that see a key: query j of row r keeps its own at base[rows[r] + columns[j]].
template <class T>
struct SeenWeights {
  const T* base;
  const int64_t *rows, *columns;
  SL_MEMBER const T* row(int64_t r) const { return base + rows[r]; }
  SL_MEMBER T in_row(const T* row, int64_t j) const { return row[columns[j]]; }
};

// out[B vectors of channels] = scale * sum over positions of weight(r, j) * values[r][j]. Even and odd positions have
// their own sums: twice the independent additions, which hides their latency.
template <class T, int B, class Weights>
static inline void weighted_block(const Weights& weights, int64_t rows, int64_t columns, const T* values, int64_t pitch,
                                  int64_t row_pitch, T scale, T* out) {
  Vec<T> even[B] = {}, odd[B] = {};
  for (int64_t r = 0; r < rows; ++r) {
    const T* weight = weights.row(r);
    const T* value = values + r * row_pitch;
    int64_t j = 0;
    for (; j + 2 <= columns; j += 2, value += 2 * pitch) {
      const Vec<T> w0 = splat(weights.in_row(weight, j)), w1 = splat(weights.in_row(weight, j + 1));
#pragma GCC unroll 4
      for (int b = 0; b < B; ++b) {
        even[b] += w0 * load(value + b * lanes<T>());
        odd[b] += w1 * load(value + pitch + b * lanes<T>());
      }
    }
    if (j < columns) {
      const Vec<T> w0 = splat(weights.in_row(weight, j));
#pragma GCC unroll 4
      for (int b = 0; b < B; ++b) even[b] += w0 * load(value + b * lanes<T>());
    }
  }
#pragma GCC unroll 4
  for (int b = 0; b < B; ++b) store(out + b * lanes<T>(), scale * (even[b] + odd[b]));
}

// out[channels] = scale * weighted sum of the window of `rows` x `columns` positions at (row, col) of interleaved rows.
template <class T, class Weights>
static void weighted_sum(const Weights& weights, const RowWindow<T>& interleaved, int64_t row, int64_t col,
                         int64_t rows, int64_t columns, int64_t channels, T scale, T* out) {
  const int64_t pitch = padded<T>(channels);
  const T* values = interleaved.row(row) + col * pitch;
  for (int64_t c = 0; c < pitch; c += kVectorBlock * lanes<T>()) {
    T rest[kVectorBlock * lanes<T>()];  // where out has no room for whole vectors
    const int64_t vectors = smaller((pitch - c) / lanes<T>(), kVectorBlock), room = channels - c;
    T* target = room < vectors * lanes<T>() ? rest : out + c;
#define SL_BLOCK(B)                                                                                                 \
  case B:                                                                                                           \
    weighted_block<T, B>(weights, rows, columns, values + c, pitch, interleaved.row_pitch, scale, target);          \
    break;
    switch (vectors) { SL_BLOCK(1) SL_BLOCK(2) SL_BLOCK(3) SL_BLOCK(4) }
#undef SL_BLOCK
    if (target == rest) memcpy(out + c, rest, room * sizeof(T));
  }
}

}  // namespace SL_ISA
}  // namespace styleloom
