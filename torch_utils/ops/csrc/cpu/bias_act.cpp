// bias_act on the CPU: runs of elements that share one bias value, vectorised by the compiler.
// T: how elements are stored; they are computed in Sum.

#include "../shared/activation.h"
#include "bfloat16.h"
#include "kernels.h"

namespace styleloom {
namespace SL_ISA {
namespace {

template <class T>
using Sum = typename AccumulateIn<T>::type;

template <class T, int act, int order>
void run_of(const BiasActArgs<T>& a, int64_t begin, int64_t end, Sum<T> b) {
  typedef Sum<T> S;
  const S alpha = S(a.p.alpha), gain = S(a.p.gain), clamp = S(a.p.clamp), zero = S(0);
  const bool from_output = a.p.from_output;
  const T *x = a.x, *g = a.g, *g2 = a.g2;
  T* y = a.y;
  if (order == 0) {
    for (int64_t i = begin; i < end; ++i) {
      y[i] = narrow<T>(bias_act_element<S, act, order>(widen(x[i]), b, zero, zero, alpha, gain, clamp, false));
    }
  } else if (order == 1 && from_output) {
    for (int64_t i = begin; i < end; ++i) {
      y[i] = narrow<T>(bias_act_element<S, act, order>(widen(x[i]), zero, widen(g[i]), zero, alpha, gain, clamp, true));
    }
  } else {
    for (int64_t i = begin; i < end; ++i) {
      const S second = order == 2 ? widen(g2[i]) : zero;
      y[i] = narrow<T>(
          bias_act_element<S, act, order>(widen(x[i]), b, widen(g[i]), second, alpha, gain, clamp, from_output));
    }
  }
}

// Elements one after another whose bias differs every time (channels last).
template <class T, int act, int order>
void cycle_of(const BiasActArgs<T>& a, int64_t begin, int64_t end) {
  typedef Sum<T> S;
  const S alpha = S(a.p.alpha), gain = S(a.p.gain), clamp = S(a.p.clamp), zero = S(0);
  const int64_t size = a.p.bias_size;
  for (int64_t i = begin; i < end;) {
    const int64_t first = i % size, last = smaller(size, first + end - i);
    const T *x = a.x + i - first, *g = a.g + (order ? i - first : 0), *g2 = a.g2 + (order == 2 ? i - first : 0);
    T* y = a.y + i - first;
    for (int64_t c = first; c < last; ++c) {
      const S first_order = order ? widen(g[c]) : zero, second = order == 2 ? widen(g2[c]) : zero;
      y[c] = narrow<T>(bias_act_element<S, act, order>(widen(x[c]), widen(a.bias[c]), first_order, second, alpha, gain,
                                                       clamp, a.p.from_output));
    }
    i += last - first;
  }
}

template <class T, int act, int order>
void range(const BiasActArgs<T>& a, int64_t begin, int64_t end) {
  if (a.p.bias_size > 0 && a.p.bias_stride == 1) return cycle_of<T, act, order>(a, begin, end);
  if (a.p.bias_size == 0) return run_of<T, act, order>(a, begin, end, Sum<T>(0));
  for (int64_t i = begin; i < end;) {
    const int64_t run = i / a.p.bias_stride, stop = smaller(end, (run + 1) * a.p.bias_stride);
    run_of<T, act, order>(a, i, stop, widen(a.bias[run % a.p.bias_size]));
    i = stop;
  }
}

template <class T, int act>
void of_order(const BiasActArgs<T>& a, int64_t begin, int64_t end) {
  if (a.p.order == 0) return range<T, act, 0>(a, begin, end);
  if (a.p.order == 1) return range<T, act, 1>(a, begin, end);
  range<T, act, 2>(a, begin, end);
}

template <class T>
void bias_act(const BiasActArgs<T>& a, int64_t begin, int64_t end) {
  switch (a.p.act) {
    case kLinear: return of_order<T, kLinear>(a, begin, end);
    case kRelu: return of_order<T, kRelu>(a, begin, end);
    case kLrelu: return of_order<T, kLrelu>(a, begin, end);
    case kTanh: return of_order<T, kTanh>(a, begin, end);
    case kSigmoid: return of_order<T, kSigmoid>(a, begin, end);
    case kElu: return of_order<T, kElu>(a, begin, end);
    case kSelu: return of_order<T, kSelu>(a, begin, end);
    case kSoftplus: return of_order<T, kSoftplus>(a, begin, end);
    case kSwish: return of_order<T, kSwish>(a, begin, end);
  }
}

}  // namespace

BiasActTable bias_act_table() { return {bias_act<float>, bias_act<double>, bias_act<BFloat16Bits>}; }

}  // namespace SL_ISA
}  // namespace styleloom
