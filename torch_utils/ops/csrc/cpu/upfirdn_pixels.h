// upfirdn2d's rows where channels come last: an output pixel is a sum of input pixels, all channels at once. And what
// these rows have in common with those of single planes.
#pragma once

#include "upfirdn_lines.h"

namespace styleloom {
namespace SL_ISA {

SL_HD TapRun rows_of(const UpfirdnParams& p, int64_t out_row) {
  return taps_of(out_row, p.up_y, p.down_y, p.pad_y, p.taps_y, p.height);
}

template <class T, class Sum>
SL_HD const T* input_row(const UpfirdnArgs<T, Sum>& a, int64_t plane, int64_t row) {
  return a.x + (plane * a.p.height + row) * a.p.width * a.p.channels;
}

template <class T, class Sum>
SL_HD T* output_row(const UpfirdnArgs<T, Sum>& a, int64_t row) {
  return a.y + row * a.p.out_width * a.p.channels;
}

// A row of results on its way to memory: directly, or, where elements are stored narrower, through scratch.
template <class T>
struct OutputRow {
  typedef typename AccumulateIn<T>::type Sum;
  static constexpr bool kDirect = sizeof(T) == sizeof(Sum);
  int64_t count;
  Sum* wide;

  OutputRow(int64_t elements, Pieces<Sum>& scratch)
      : count(elements), wide(kDirect ? nullptr : scratch.template take<Sum>(elements)) {}

  static int64_t space(int64_t elements) { return kDirect ? 0 : Pieces<Sum>::template space<Sum>(elements); }

  // fill(out) computes the row.
  template <class F>
  SL_MEMBER void write(T* out, F&& fill) const {
    if constexpr (kDirect) {
      fill(out);
    } else {
      fill(wide);
      narrow_row(wide, count, out);
    }
  }
};

template <class T>
struct PixelPass {
  typedef typename AccumulateIn<T>::type Sum;
  const UpfirdnArgs<T, Sum>& a;
  TapRun* columns;  // of every output column
  Term<T>* inputs;
  Term<Sum>* sums;
  Sum* summed;  // one row of the input, summed over rows
  OutputRow<T> output;

  PixelPass(const UpfirdnArgs<T, Sum>& args, Pieces<Sum>& scratch)
      : a(args), columns(scratch.template take<TapRun>(a.p.out_width)),
        inputs(scratch.template take<Term<T>>(a.p.taps_y * a.p.taps_x)),
        sums(scratch.template take<Term<Sum>>(a.p.taps_x)), summed(scratch.template take<Sum>(a.p.width * a.p.channels)),
        output(a.p.out_width * a.p.channels, scratch) {
    for (int64_t x = 0; x < a.p.out_width; ++x) {
      columns[x] = taps_of(x, a.p.up_x, a.p.down_x, a.p.pad_x, a.p.taps_x, a.p.width);
    }
  }

  static int64_t space(const UpfirdnParams& p) {
    typedef Pieces<Sum> P;
    return P::template space<TapRun>(p.out_width) + P::template space<Term<T>>(p.taps_y * p.taps_x) +
           P::template space<Term<Sum>>(p.taps_x) + P::template space<Sum>(p.width * p.channels) +
           OutputRow<T>::space(p.out_width * p.channels);
  }

  // Output row i by the filter along_y x along_x.
  SL_MEMBER void separable_row(int64_t i, const Sum* along_x, const Sum* along_y) const {
    const int64_t plane = i / a.p.out_height, channels = a.p.channels;
    const TapRun rows = rows_of(a.p, i % a.p.out_height);
    for (int64_t j = 0; j < rows.count; ++j) {
      inputs[j] = Term<T>{input_row(a, plane, rows.first + j), along_y[rows.tap + j * a.p.up_y]};
    }
    sum_terms(inputs, rows.count, a.p.width * channels, summed);
    output.write(output_row(a, i), [&](Sum* out) {
      for (int64_t x = 0; x < a.p.out_width; ++x) {
        const TapRun run = columns[x];
        for (int64_t k = 0; k < run.count; ++k) {
          sums[k] = Term<Sum>{summed + (run.first + k) * channels, along_x[run.tap + k * a.p.up_x]};
        }
        sum_terms(sums, run.count, channels, out + x * channels);
      }
    });
  }

  // Output row i by any filter.
  SL_MEMBER void general_row(int64_t i) const {
    const int64_t plane = i / a.p.out_height, channels = a.p.channels;
    const TapRun rows = rows_of(a.p, i % a.p.out_height);
    output.write(output_row(a, i), [&](Sum* out) {
      for (int64_t x = 0; x < a.p.out_width; ++x) {
        const TapRun run = columns[x];
        int64_t n = 0;
        for (int64_t j = 0; j < rows.count; ++j) {
          const T* pixel = input_row(a, plane, rows.first + j) + run.first * channels;
          const Sum* f = a.f + (rows.tap + j * a.p.up_y) * a.p.taps_x + run.tap;
          for (int64_t k = 0; k < run.count; ++k) inputs[n++] = Term<T>{pixel + k * channels, f[k * a.p.up_x]};
        }
        sum_terms(inputs, n, channels, out + x * channels);
      }
    });
  }
};

}  // namespace SL_ISA
}  // namespace styleloom
