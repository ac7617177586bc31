// upfirdn2d on the CPU, output row by output row. A filter of rank one runs as two passes: rows of the input are summed
// first, then the columns of that one row. Other filters sum all their taps over the lines of several rows.

#include <limits>

#include "kernels.h"
#include "upfirdn_lines.h"

namespace styleloom {
namespace SL_ISA {
namespace {

// Input rows whose lines are kept for a filter of any rank.
int64_t kept_rows(const UpfirdnParams& p) { return p.taps_y / p.up_y + 2; }

template <class T>
int64_t scratch_size(const UpfirdnParams& p) {
  typedef Pieces<T> P;
  const int64_t line_space = Columns(p).line_space();
  const int64_t factors = P::template space<T>(p.taps_x) + P::template space<T>(p.taps_y);
  const int64_t general = ColumnPass<T>::space(p, p.taps_y) + P::template space<T>(kept_rows(p) * line_space);
  const int64_t separable = ColumnPass<T>::space(p, 1) + P::template space<Term<T>>(p.taps_y) +
                            P::template space<T>(p.width) + P::template space<T>(line_space);
  return factors + larger(general, separable);
}

// Whether two passes multiply less often than one, for each output.
bool two_passes_pay(const UpfirdnParams& p) {
  const int64_t taps_y = ceil_div(p.taps_y, p.up_y), taps_x = ceil_div(p.taps_x, p.up_x);
  return taps_y * p.width + taps_x * p.out_width < taps_y * taps_x * p.out_width;
}

// Writes f as along_y[i] * along_x[j]; false if that misses an element of f by more than rounding.
template <class T>
bool factorise(const UpfirdnArgs<T, T>& a, T* along_x, T* along_y) {
  const int64_t rows = a.p.taps_y, cols = a.p.taps_x;
  int64_t pivot = 0;
  for (int64_t i = 1; i < rows * cols; ++i) pivot = ::fabs(a.f[i]) > ::fabs(a.f[pivot]) ? i : pivot;
  const T largest = a.f[pivot], tolerance = 4 * std::numeric_limits<T>::epsilon() * ::fabs(largest);
  for (int64_t j = 0; j < cols; ++j) along_x[j] = a.f[pivot / cols * cols + j];
  for (int64_t i = 0; i < rows; ++i) along_y[i] = largest == T(0) ? T(0) : a.f[i * cols + pivot % cols] / largest;
  for (int64_t i = 0; i < rows * cols; ++i) {
    if (!(::fabs(a.f[i] - along_y[i / cols] * along_x[i % cols]) <= tolerance)) return false;  // a NaN fails too
  }
  return true;
}

template <class T>
TapRun rows_of(const UpfirdnArgs<T, T>& a, int64_t out_row) {
  return taps_of(out_row, a.p.up_y, a.p.down_y, a.p.pad_y, a.p.taps_y, a.p.height);
}

template <class T>
const T* input_row(const UpfirdnArgs<T, T>& a, int64_t plane, int64_t row) {
  return a.x + (plane * a.p.height + row) * a.p.width;
}

template <class T>
T* output_row(const UpfirdnArgs<T, T>& a, int64_t plane, int64_t row) {
  return a.y + (plane * a.p.out_height + row) * a.p.out_width;
}

// Output rows [begin, end) by the filter along_y x along_x.
template <class T>
void separable_rows(const UpfirdnArgs<T, T>& a, const T* along_x, const T* along_y, int64_t begin, int64_t end,
                    Pieces<T> scratch) {
  const ColumnPass<T> columns(a.p, 1, scratch);
  Term<T>* terms = scratch.template take<Term<T>>(a.p.taps_y);
  T *sums = scratch.template take<T>(a.p.width), *lines = scratch.template take<T>(columns.c.line_space());
  for (int64_t i = begin; i < end; ++i) {
    const int64_t plane = i / a.p.out_height, out_row = i % a.p.out_height;
    const TapRun rows = rows_of(a, out_row);
    for (int64_t j = 0; j < rows.count; ++j) {
      terms[j] = Term<T>{input_row(a, plane, rows.first + j), along_y[rows.tap + j * a.p.up_y]};
    }
    sum_terms(terms, rows.count, a.p.width, sums);
    fill_lines(sums, columns.c, lines);
    columns.run(1, [&](int64_t) { return RowOfLines<T>{lines, along_x}; }, output_row(a, plane, out_row));
  }
}

// Output rows [begin, end) by any filter. The lines of an input row serve all the output rows that it meets.
template <class T>
void general_rows(const UpfirdnArgs<T, T>& a, int64_t begin, int64_t end, Pieces<T> scratch) {
  const ColumnPass<T> columns(a.p, a.p.taps_y, scratch);
  const int64_t kept = kept_rows(a.p), line_space = columns.c.line_space();
  T* lines = scratch.template take<T>(kept * line_space);
  const auto lines_of = [&](int64_t row) { return lines + row % kept * line_space; };
  int64_t filled_to = 0;  // input rows [.., filled_to) of this plane have their lines
  for (int64_t i = begin; i < end; ++i) {
    const int64_t plane = i / a.p.out_height, out_row = i % a.p.out_height;
    const TapRun rows = rows_of(a, out_row);
    filled_to = larger(i == begin || out_row == 0 ? 0 : filled_to, rows.first);
    for (; filled_to < rows.first + rows.count; ++filled_to) {
      fill_lines(input_row(a, plane, filled_to), columns.c, lines_of(filled_to));
    }
    const auto row = [&](int64_t j) {
      return RowOfLines<T>{lines_of(rows.first + j), a.f + (rows.tap + j * a.p.up_y) * a.p.taps_x};
    };
    columns.run(rows.count, row, output_row(a, plane, out_row));
  }
}

template <class T>
void upfirdn(const UpfirdnArgs<T, T>& a, int64_t begin, int64_t end, T* memory) {
  Pieces<T> scratch{memory};
  T *along_x = scratch.template take<T>(a.p.taps_x), *along_y = scratch.template take<T>(a.p.taps_y);
  if (two_passes_pay(a.p) && factorise(a, along_x, along_y)) {
    separable_rows(a, along_x, along_y, begin, end, scratch);
  } else {
    general_rows(a, begin, end, scratch);
  }
}

}  // namespace

UpfirdnTable upfirdn_table() {
  return {{scratch_size<float>, upfirdn<float>}, {scratch_size<double>, upfirdn<double>}};
}

}  // namespace SL_ISA
}  // namespace styleloom
