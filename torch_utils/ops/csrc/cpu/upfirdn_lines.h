// The parts of upfirdn2d's row loops: sums of lines, and the columns of one output row. An input row is copied into
// padded lines, one per residue of its column modulo the input stride; then every output phase is a sum of shifted
// lines, and nothing needs a border test.
#pragma once

#include "../shared/resample.h"
#include "bfloat16.h"

namespace styleloom {
namespace SL_ISA {

// One term of a sum: a line of elements stored as L, and its coefficient.
template <class L>
struct Term {
  const L* line;
  typename AccumulateIn<L>::type coefficient;
};

template <class L, int VECTORS, class T>
static inline void sum_block(const Term<L>* terms, int64_t term_count, int64_t from, T* out) {
  Vec<T> total[VECTORS] = {};
  for (int64_t k = 0; k < term_count; ++k) {
    const Vec<T> f = splat(terms[k].coefficient);
    const L* line = terms[k].line + from;
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) total[v] += f * load(line + v * lanes<T>());
  }
#pragma GCC unroll 4
  for (int v = 0; v < VECTORS; ++v) store(out + from + v * lanes<T>(), total[v]);
}

// out[i] = sum of coefficient * line[i], i < count; reads and writes nothing beyond.
template <class L, class T>
static void sum_terms(const Term<L>* terms, int64_t term_count, int64_t count, T* out) {
  constexpr int64_t kStep = 4 * lanes<T>();
  int64_t i = 0;
  for (; i + kStep <= count; i += kStep) sum_block<L, 4>(terms, term_count, i, out);
  for (; i + lanes<T>() <= count; i += lanes<T>()) sum_block<L, 1>(terms, term_count, i, out);
  if (i == count) return;
  if (count >= lanes<T>()) return sum_block<L, 1>(terms, term_count, count - lanes<T>(), out);
  for (; i < count; ++i) {
    T total = 0;
    for (int64_t k = 0; k < term_count; ++k) total += terms[k].coefficient * widen(terms[k].line[i]);
    out[i] = total;
  }
}

SL_HD int64_t common_divisor(int64_t a, int64_t b) {
  while (b != 0) {
    const int64_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

// The column rule: output phase + t * period reads, at a tap that it meets, input first(phase, tap) + t * stride.
struct Columns {
  int64_t period, stride, count;  // count: most outputs of one phase
  int64_t left, length;           // a line holds inputs left + residue + stride * i, i < length
  int64_t width, out_width, up, down, pad, taps;

  explicit Columns(const UpfirdnParams& p)
      : width(p.width), out_width(p.out_width), up(p.up_x), down(p.down_x), pad(p.pad_x), taps(p.taps_x) {
    const int64_t g = common_divisor(up, down);
    period = up / g;
    stride = down / g;
    count = ceil_div(out_width, period);
    left = floor_div(-pad, up) - 1;
    const int64_t highest = floor_div((period - 1) * down + taps - 1 - pad, up) + 1;
    length = count + ceil_div(highest - left + 1, stride) + 1;
  }

  SL_MEMBER int64_t line_space() const { return stride * length; }
};

// Copies a row into the line of one residue, zeros outside. STRIDE: c.stride where that is known here, else 0.
template <int STRIDE, class L, class T>
static inline void fill_line(const L* row, const Columns& c, int64_t residue, T* line) {
  const int64_t stride = STRIDE ? STRIDE : c.stride, start = c.left + residue;  // start: input column of line[0]
  const int64_t before = start >= 0 ? 0 : ceil_div(-start, stride);
  const int64_t begin = smaller(before, c.length);
  const int64_t end = larger(begin, smaller(c.width > start ? ceil_div(c.width - start, stride) : 0, c.length));
  for (int64_t i = 0; i < begin; ++i) line[i] = T(0);
  for (int64_t i = begin; i < end; ++i) line[i] = widen(row[start + stride * i]);
  for (int64_t i = end; i < c.length; ++i) line[i] = T(0);
}

template <class L, class T>
static void fill_lines(const L* row, const Columns& c, T* lines) {
  for (int64_t residue = 0; residue < c.stride; ++residue) {
    T* line = lines + residue * c.length;
    if (c.stride == 1) {
      fill_line<1>(row, c, residue, line);
    } else if (c.stride == 2) {
      fill_line<2>(row, c, residue, line);
    } else {
      fill_line<0>(row, c, residue, line);
    }
  }
}

// Puts the phases of an output row in order; there are at least two.
template <class T>
static void interleave(const T* phases, const Columns& c, T* out) {
  if (c.period == 2) {
    const T *even = phases, *odd = phases + c.count;
    for (int64_t i = 0; i < c.out_width / 2; ++i) {
      out[2 * i] = even[i];
      out[2 * i + 1] = odd[i];
    }
    if (c.out_width % 2 == 1) out[c.out_width - 1] = even[c.out_width / 2];
  } else {
    for (int64_t i = 0; i < c.out_width; ++i) out[i] = phases[(i % c.period) * c.count + i / c.period];
  }
}

// Hands out aligned pieces of one thread's scratch memory.
template <class T>
struct Pieces {
  T* next;
  template <class E>
  SL_MEMBER E* take(int64_t count) {
    E* piece = reinterpret_cast<E*>(next);
    next += space<E>(count);
    return piece;
  }
  // Elements of T that `take<E>(count)` uses.
  template <class E>
  SL_MEMBER static int64_t space(int64_t count) {
    constexpr int64_t kLine = 64;
    return ceil_div(count * int64_t(sizeof(E)), kLine) * kLine / int64_t(sizeof(T));
  }
};

template <class T>
struct RowOfLines {
  const T *lines, *f;
};

// A tap that an output phase meets, and where its line begins among those of a row.
struct ColumnTap {
  int64_t tap, phase, place;
};

// From the lines of input rows to one output row.
template <class T>
struct ColumnPass {
  const Columns c;
  ColumnTap* taps;  // by phase; every tap meets one phase at most
  int64_t tap_count = 0;
  Term<T>* terms;
  T* phases;

  ColumnPass(const UpfirdnParams& p, int64_t most_rows, Pieces<T>& scratch) : c(p) {
    taps = scratch.template take<ColumnTap>(c.taps);
    terms = scratch.template take<Term<T>>(c.taps * most_rows);
    phases = scratch.template take<T>(c.period * c.count);
    for (int64_t phase = 0; phase < c.period; ++phase) {
      for (int64_t k = 0; k < c.taps; ++k) {
        const int64_t offset = phase * c.down + k - c.pad, from = floor_div(offset, c.up) - c.left;
        if (floor_div(offset, c.up) * c.up != offset) continue;
        taps[tap_count++] = ColumnTap{k, phase, from % c.stride * c.length + from / c.stride};
      }
    }
  }

  static int64_t space(const UpfirdnParams& p, int64_t most_rows) {
    const Columns c(p);
    typedef Pieces<T> P;
    return P::template space<ColumnTap>(c.taps) + P::template space<Term<T>>(c.taps * most_rows) +
           P::template space<T>(c.period * c.count);
  }

  // row(j): the lines of the j-th input row, and the row of the filter that it meets.
  template <class F>
  void run(int64_t rows, F&& row, T* out) const {
    int64_t first = 0, last = 0;
    for (int64_t phase = 0; phase < c.period; ++phase, first = last) {
      while (last < tap_count && taps[last].phase == phase) ++last;
      int64_t n = 0;
      for (int64_t j = 0; j < rows; ++j) {
        const RowOfLines<T> r = row(j);
        for (int64_t k = first; k < last; ++k) terms[n++] = Term<T>{r.lines + taps[k].place, r.f[taps[k].tap]};
      }
      sum_terms(terms, n, c.count, c.period == 1 ? out : phases + phase * c.count);
    }
    if (c.period > 1) interleave(phases, c, out);
  }
};

}  // namespace SL_ISA
}  // namespace styleloom
