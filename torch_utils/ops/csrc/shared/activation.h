// bias_act, element by element: y = clamp(gain * act(x + b)) and its first two derivatives. One body for all devices.
#pragma once

#include <math.h>

#include "portable.h"

namespace styleloom {

enum Act { kLinear, kRelu, kLrelu, kTanh, kSigmoid, kElu, kSelu, kSoftplus, kSwish, kActCount };

// Order 0: x is the input, y = clamp(gain * act(x + b)).
// Order 1: y = g * dy/dx. Order 2: y = g * g2 * d2y/dx2. `x` is then the input, or, for the piecewise linear
// activations with positive alpha and gain, the output of order 0 (`from_output`).
struct BiasActParams {
  int64_t count;        // elements
  int64_t bias_stride;  // element i takes bias (i / bias_stride) % bias_size
  int64_t bias_size;    // 0: no bias
  double alpha, gain;
  double clamp;  // NaN: no clamp; comparisons with it are false
  int act, order;
  bool from_output;
};

template <class T>
struct BiasActArgs {
  BiasActParams p;
  const T *x, *bias, *g, *g2;
  T* y;
};

namespace SL_ISA {

constexpr double kSeluAlpha = 1.6732632423543772, kSeluScale = 1.0507009873554805;

template <class T, int act>
SL_HD T act_value(T u, T alpha) {
  if (act == kRelu) return u <= 0 ? T(0) : u;  // NaN stays NaN
  if (act == kLrelu) return u > 0 ? u : alpha * u;
  if (act == kTanh) return ::tanh(u);
  if (act == kSigmoid) return T(1) / (T(1) + ::exp(-u));
  if (act == kElu) return u > 0 ? u : ::expm1(u);
  if (act == kSelu) return T(kSeluScale) * (u > 0 ? u : T(kSeluAlpha) * ::expm1(u));
  if (act == kSoftplus) return u > 20 ? u : ::log1p(exp(u));
  if (act == kSwish) return u / (T(1) + ::exp(-u));
  return u;
}

template <class T, int act>
SL_HD T act_slope(T u, T alpha) {
  if (act == kRelu) return u <= 0 ? T(0) : T(1);
  if (act == kLrelu) return u > 0 ? T(1) : alpha;
  if (act == kTanh) return T(1) - ::tanh(u) * ::tanh(u);
  if (act == kElu) return u > 0 ? T(1) : ::exp(u);
  if (act == kSelu) return T(kSeluScale) * (u > 0 ? T(1) : T(kSeluAlpha) * ::exp(u));
  const T s = T(1) / (T(1) + ::exp(-u));
  if (act == kSigmoid) return s * (T(1) - s);
  if (act == kSoftplus) return s;
  if (act == kSwish) return s * (T(1) + u * (T(1) - s));
  return T(1);
}

template <class T, int act>
SL_HD T act_curvature(T u) {
  if (act == kElu) return u > 0 ? T(0) : ::exp(u);
  if (act == kSelu) return u > 0 ? T(0) : T(kSeluScale * kSeluAlpha) * ::exp(u);
  if (act == kTanh) return T(-2) * ::tanh(u) * (T(1) - ::tanh(u) * ::tanh(u));
  const T s = T(1) / (T(1) + ::exp(-u)), ds = s * (T(1) - s);
  if (act == kSigmoid) return ds * (T(1) - 2 * s);
  if (act == kSoftplus) return ds;
  if (act == kSwish) return ds * (T(2) + u * (T(1) - 2 * s));
  return T(0);
}

// One element. x, b, g, g2 as in BiasActParams; alpha, gain and clamp in the type of the sums.
template <class T, int act, int order>
SL_HD T bias_act_element(T x, T b, T g, T g2, T alpha, T gain, T clamp, bool from_output) {
  const T u = x + b;
  if (order == 0) {
    const T y = gain * act_value<T, act>(u, alpha);
    return y > clamp ? clamp : (y < -clamp ? -clamp : y);
  }
  const T y = from_output ? x : gain * act_value<T, act>(u, alpha);
  const bool inside = !(y >= clamp) && !(y <= -clamp);
  if (order == 1) return inside ? g * gain * act_slope<T, act>(u, alpha) : T(0);
  return inside ? g * g2 * gain * act_curvature<T, act>(u) : T(0);
}

}  // namespace SL_ISA
}  // namespace styleloom
