// upfirdn2d on the CPU, output row by output row. A filter of rank one runs as two passes: rows of the input are summed
// first, then the columns of that one row. Other filters sum all their taps over the lines of several rows. Where
// channels come last, upfirdn_pixels.h has the row. T is how elements are stored, Sum<T> what they are summed in.

#include <limits>

#include "kernels.h"
#include "upfirdn_pixels.h"

namespace styleloom {
namespace SL_ISA {
namespace {

// Input rows whose lines are kept for a filter of any rank.
int64_t kept_rows(const UpfirdnParams& p) { return p.taps_y / p.up_y + 2; }

template <class T>
using Sum = typename AccumulateIn<T>::type;

template <class T>
int64_t scratch_size(const UpfirdnParams& p) {
  typedef Sum<T> S;
  typedef Pieces<S> P;
  const int64_t factors = P::template space<S>(p.taps_x) + P::template space<S>(p.taps_y);
  if (p.channels > 1) return factors + PixelPass<T>::space(p);
  const int64_t line_space = Columns(p).line_space();
  const int64_t general = ColumnPass<S>::space(p, p.taps_y) + P::template space<S>(kept_rows(p) * line_space);
  const int64_t separable = ColumnPass<S>::space(p, 1) + P::template space<Term<T>>(p.taps_y) +
                            P::template space<S>(p.width) + P::template space<S>(line_space);
  return factors + OutputRow<T>::space(p.out_width) + larger(general, separable);
}

// Whether two passes multiply less often than one, for each output.
bool two_passes_pay(const UpfirdnParams& p) {
  const int64_t taps_y = ceil_div(p.taps_y, p.up_y), taps_x = ceil_div(p.taps_x, p.up_x);
  return taps_y * p.width + taps_x * p.out_width < taps_y * taps_x * p.out_width;
}

// Writes f as along_y[i] * along_x[j]; false if that misses an element of f by more than rounding.
template <class S>
bool factorise(const S* f, const UpfirdnParams& p, S* along_x, S* along_y) {
  const int64_t rows = p.taps_y, cols = p.taps_x;
  int64_t pivot = 0;
  for (int64_t i = 1; i < rows * cols; ++i) pivot = ::fabs(f[i]) > ::fabs(f[pivot]) ? i : pivot;
  const S largest = f[pivot], tolerance = 4 * std::numeric_limits<S>::epsilon() * ::fabs(largest);
  for (int64_t j = 0; j < cols; ++j) along_x[j] = f[pivot / cols * cols + j];
  for (int64_t i = 0; i < rows; ++i) along_y[i] = largest == S(0) ? S(0) : f[i * cols + pivot % cols] / largest;
  for (int64_t i = 0; i < rows * cols; ++i) {
    if (!(::fabs(f[i] - along_y[i / cols] * along_x[i % cols]) <= tolerance)) return false;  // a NaN fails too
  }
  return true;
}

// Output rows [begin, end) by the filter along_y x along_x.
template <class T>
void separable_rows(const UpfirdnArgs<T, Sum<T>>& a, const Sum<T>* along_x, const Sum<T>* along_y, int64_t begin,
                    int64_t end, Pieces<Sum<T>> scratch) {
  typedef Sum<T> S;
  const ColumnPass<S> columns(a.p, 1, scratch);
  const OutputRow<T> output(a.p.out_width, scratch);
  Term<T>* terms = scratch.template take<Term<T>>(a.p.taps_y);
  S *sums = scratch.template take<S>(a.p.width), *lines = scratch.template take<S>(columns.c.line_space());
  for (int64_t i = begin; i < end; ++i) {
    const int64_t plane = i / a.p.out_height, out_row = i % a.p.out_height;
    const TapRun rows = rows_of(a.p, out_row);
    for (int64_t j = 0; j < rows.count; ++j) {
      terms[j] = Term<T>{input_row(a, plane, rows.first + j), along_y[rows.tap + j * a.p.up_y]};
    }
    sum_terms(terms, rows.count, a.p.width, sums);
    fill_lines(sums, columns.c, lines);
    output.write(output_row(a, i), [&](S* out) {
      columns.run(1, [&](int64_t) { return RowOfLines<S>{lines, along_x}; }, out);
    });
  }
}

// Output rows [begin, end) by any filter. The lines of an input row serve all the output rows that it meets.
template <class T>
void general_rows(const UpfirdnArgs<T, Sum<T>>& a, int64_t begin, int64_t end, Pieces<Sum<T>> scratch) {
  typedef Sum<T> S;
  const ColumnPass<S> columns(a.p, a.p.taps_y, scratch);
  const OutputRow<T> output(a.p.out_width, scratch);
  const int64_t kept = kept_rows(a.p), line_space = columns.c.line_space();
  S* lines = scratch.template take<S>(kept * line_space);
  const auto lines_of = [&](int64_t row) { return lines + row % kept * line_space; };
  int64_t filled_to = 0;  // input rows [.., filled_to) of this plane have their lines
  for (int64_t i = begin; i < end; ++i) {
    const int64_t plane = i / a.p.out_height, out_row = i % a.p.out_height;
    const TapRun rows = rows_of(a.p, out_row);
    filled_to = larger(i == begin || out_row == 0 ? 0 : filled_to, rows.first);
    for (; filled_to < rows.first + rows.count; ++filled_to) {
      fill_lines(input_row(a, plane, filled_to), columns.c, lines_of(filled_to));
    }
    const auto row = [&](int64_t j) {
      return RowOfLines<S>{lines_of(rows.first + j), a.f + (rows.tap + j * a.p.up_y) * a.p.taps_x};
    };
    output.write(output_row(a, i), [&](S* out) { columns.run(rows.count, row, out); });
  }
}

template <class T>
void upfirdn(const UpfirdnArgs<T, Sum<T>>& a, int64_t begin, int64_t end, Sum<T>* memory) {
  typedef Sum<T> S;
  Pieces<S> scratch{memory};
  S *along_x = scratch.template take<S>(a.p.taps_x), *along_y = scratch.template take<S>(a.p.taps_y);
  const bool two_passes = two_passes_pay(a.p) && factorise(a.f, a.p, along_x, along_y);
  if (a.p.channels > 1) {
    PixelPass<T> pixels(a, scratch);
    for (int64_t i = begin; i < end; ++i) two_passes ? pixels.separable_row(i, along_x, along_y) : pixels.general_row(i);
  } else if (two_passes) {
    separable_rows(a, along_x, along_y, begin, end, scratch);
  } else {
    general_rows(a, begin, end, scratch);
  }
}

}  // namespace

UpfirdnTable upfirdn_table() {
  return {{scratch_size<float>, upfirdn<float>},
          {scratch_size<double>, upfirdn<double>},
          {scratch_size<BFloat16Bits>, upfirdn<BFloat16Bits>}};
}

}  // namespace SL_ISA
}  // namespace styleloom
