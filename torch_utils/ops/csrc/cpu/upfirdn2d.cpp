// upfirdn2d on the CPU. Each input row is copied once into padded lines, one per residue of its column modulo the
// input stride; then every output phase is a sum of shifted lines, and nothing needs a border test.

#include "../shared/resample.h"
#include "kernels.h"
#include "vector.h"

namespace styleloom {
namespace SL_ISA {
namespace {

int64_t common_divisor(int64_t a, int64_t b) { return b == 0 ? a : common_divisor(b, a % b); }

// The column rule: output phase + t * period reads, at tap k, input first[phase][k] + t * stride.
struct Columns {
  int64_t period, stride, count;  // count: outputs of one phase
  int64_t left, length;           // a line holds inputs left + residue + stride * i, i < length
};

Columns columns_of(const UpfirdnParams& p, int64_t lane_count) {
  const int64_t g = common_divisor(p.up_x, p.down_x);
  Columns c;
  c.period = p.up_x / g;
  c.stride = p.down_x / g;
  c.count = ceil_div(p.out_width, c.period);
  c.count = ceil_div(c.count, lane_count) * lane_count;
  const int64_t lowest = floor_div(-p.pad_x, p.up_x) - 1;
  const int64_t highest = floor_div((c.period - 1) * p.down_x + p.taps_x - 1 - p.pad_x, p.up_x) + 1;
  c.left = lowest;
  c.length = c.count + ceil_div(highest - lowest + 1, c.stride) + 1;
  return c;
}

// One term of an output phase: a line shifted, and its coefficient.
template <class T>
struct Term {
  const T* line;
  T coefficient;
};

template <class T>
int64_t scratch_size(const UpfirdnParams& p) {
  const Columns c = columns_of(p, lanes<T>());
  // Rows of lines that one output row needs, a row of each phase, and the tap list.
  const int64_t lines = p.taps_y / p.up_y + 2;
  const int64_t terms = sizeof(Term<T>) / sizeof(T) * p.taps_x * p.taps_y;
  return lines * c.stride * c.length + c.period * c.count + terms + 4 * lanes<T>();
}

// Copies input row `row` of a plane into its lines, zeros outside.
template <class T>
void fill_lines(const T* row, const UpfirdnParams& p, const Columns& c, T* lines) {
  for (int64_t residue = 0; residue < c.stride; ++residue) {
    T* line = lines + residue * c.length;
    const int64_t start = c.left + residue;  // input column of line[0]
    int64_t begin = start >= 0 ? 0 : ceil_div(-start, c.stride);
    int64_t end = p.width > start ? ceil_div(p.width - start, c.stride) : 0;
    begin = smaller(begin, c.length);
    end = larger(begin, smaller(end, c.length));
    for (int64_t i = 0; i < begin; ++i) line[i] = T(0);
    if (c.stride == 1) {
      for (int64_t i = begin; i < end; ++i) line[i] = row[start + i];
    } else if (c.stride == 2) {
      for (int64_t i = begin; i < end; ++i) line[i] = row[start + 2 * i];
    } else {
      for (int64_t i = begin; i < end; ++i) line[i] = row[start + c.stride * i];
    }
    for (int64_t i = end; i < c.length; ++i) line[i] = T(0);
  }
}

template <class T>
void sum_terms(const Term<T>* terms, int64_t term_count, int64_t count, T* out) {
  int64_t i = 0;
  for (; i + 4 * lanes<T>() <= count; i += 4 * lanes<T>()) {
    Vec<T> total[4] = {};
    for (int64_t k = 0; k < term_count; ++k) {
      const Vec<T> f = splat(terms[k].coefficient);
      const T* line = terms[k].line + i;
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) total[v] += f * load(line + v * lanes<T>());
    }
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) store(out + i + v * lanes<T>(), total[v]);
  }
  for (; i < count; i += lanes<T>()) {
    Vec<T> total = {};
    for (int64_t k = 0; k < term_count; ++k) total += splat(terms[k].coefficient) * load(terms[k].line + i);
    store(out + i, total);
  }
}

// One output row of one plane from the lines of the input rows that it needs.
template <class T>
struct RowBuilder {
  const UpfirdnArgs<T, T>& a;
  const Columns c;
  T *lines, *phases;
  Term<T>* terms;
  int64_t slots;          // rows of lines that fit
  int64_t filled_to = 0;  // input rows [.., filled_to) of this plane are in their slots

  RowBuilder(const UpfirdnArgs<T, T>& args, T* scratch) : a(args), c(columns_of(args.p, lanes<T>())) {
    slots = a.p.taps_y / a.p.up_y + 2;
    terms = reinterpret_cast<Term<T>*>(scratch);
    lines = scratch + round_to_lanes(sizeof(Term<T>) / sizeof(T) * a.p.taps_x * a.p.taps_y);
    phases = lines + slots * c.stride * c.length;
  }

  static int64_t round_to_lanes(int64_t n) { return ceil_div(n, lanes<T>()) * lanes<T>(); }

  T* lines_of(int64_t row) const { return lines + (row % slots) * c.stride * c.length; }

  int64_t collect_terms(const TapRun& rows, int64_t phase) const {
    int64_t n = 0;
    for (int64_t j = 0; j < rows.count; ++j) {
      const T* f = a.f + (rows.tap + j * a.p.up_y) * a.p.taps_x;
      const T* row_lines = lines_of(rows.first + j);
      for (int64_t k = 0; k < a.p.taps_x; ++k) {
        const int64_t offset = phase * a.p.down_x + k - a.p.pad_x;
        if (floor_div(offset, a.p.up_x) * a.p.up_x != offset) continue;
        const int64_t from = floor_div(offset, a.p.up_x) - c.left;
        terms[n++] = Term<T>{row_lines + (from % c.stride) * c.length + from / c.stride, f[k]};
      }
    }
    return n;
  }

  void build(int64_t plane, int64_t oy, bool new_plane) {
    const TapRun rows = taps_of(oy, a.p.up_y, a.p.down_y, a.p.pad_y, a.p.taps_y, a.p.height);
    if (new_plane) filled_to = 0;
    if (filled_to < rows.first) filled_to = rows.first;
    for (; filled_to < rows.first + rows.count; ++filled_to) {
      fill_lines(a.x + (plane * a.p.height + filled_to) * a.p.width, a.p, c, lines_of(filled_to));
    }
    T* out = a.y + (plane * a.p.out_height + oy) * a.p.out_width;
    for (int64_t phase = 0; phase < c.period; ++phase) {
      sum_terms(terms, collect_terms(rows, phase), c.count, phases + phase * c.count);
    }
    interleave(out);
  }

  void interleave(T* out) const {
    const int64_t whole = a.p.out_width / c.period;
    if (c.period == 1) {
      for (int64_t i = 0; i < whole; ++i) out[i] = phases[i];
    } else if (c.period == 2) {
      const T *even = phases, *odd = phases + c.count;
      for (int64_t i = 0; i < whole; ++i) {
        out[2 * i] = even[i];
        out[2 * i + 1] = odd[i];
      }
    } else {
      for (int64_t i = 0; i < whole * c.period; ++i) out[i] = phases[(i % c.period) * c.count + i / c.period];
    }
    for (int64_t i = whole * c.period; i < a.p.out_width; ++i) {
      out[i] = phases[(i % c.period) * c.count + i / c.period];
    }
  }
};

// Tasks are output rows, plane after plane.
template <class T>
void upfirdn(const UpfirdnArgs<T, T>& a, int64_t begin, int64_t end, T* scratch) {
  RowBuilder<T> rows(a, scratch);
  for (int64_t i = begin; i < end; ++i) {
    rows.build(i / a.p.out_height, i % a.p.out_height, i == begin || i % a.p.out_height == 0);
  }
}

}  // namespace

UpfirdnTable upfirdn_table() {
  return {{scratch_size<float>, upfirdn<float>}, {scratch_size<double>, upfirdn<double>}};
}

}  // namespace SL_ISA
}  // namespace styleloom
