// Short vectors by the compiler's vector extension: SL_VECTOR_BYTES wide, for float and double.
#pragma once

#include <math.h>

#include "../shared/portable.h"

namespace styleloom {
namespace SL_ISA {

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(SL_VECTOR_BYTES)));
  typedef int32_t mask __attribute__((vector_size(SL_VECTOR_BYTES)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(SL_VECTOR_BYTES)));
  typedef int64_t mask __attribute__((vector_size(SL_VECTOR_BYTES)));
};
template <class T>
using Vec = typename VectorOf<T>::type;

template <class T>
constexpr int64_t lanes() {
  return SL_VECTOR_BYTES / sizeof(T);
}

template <class T>
SL_HD Vec<T> load(const T* p) {
  Vec<T> v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}

template <class T>
SL_HD void store(T* p, Vec<T> v) {
  __builtin_memcpy(p, &v, sizeof(v));
}

template <class T>
SL_HD Vec<T> splat(T x) {
  return Vec<T>{} + x;
}

template <class T>
SL_HD T sum(Vec<T> v) {
  T total = 0;
  for (int64_t i = 0; i < lanes<T>(); ++i) total += v[i];
  return total;
}

template <class T>
SL_HD T max(Vec<T> v) {
  T best = v[0];
  for (int64_t i = 1; i < lanes<T>(); ++i) best = v[i] > best ? v[i] : best;
  return best;
}

// Lane i is lane from[i] of a, or from[i] - lanes of b.
template <class T>
SL_HD Vec<T> shuffled(Vec<T> a, Vec<T> b, typename VectorOf<T>::mask from) {
#ifdef __clang__  // its shuffle takes literals only; once the loops are unrolled these lanes are constant, too
  Vec<T> result;
  for (int64_t i = 0; i < lanes<T>(); ++i) result[i] = from[i] < lanes<T>() ? a[from[i]] : b[from[i] - lanes<T>()];
  return result;
#else
  return __builtin_shuffle(a, b, from);
#endif
}

// Exchanges rows and columns of lanes x lanes elements: at each step the off-diagonal parts of every block of 2 half x
// 2 half elements change places.
template <class T>
SL_HD void transpose(Vec<T>* rows) {
  typedef typename VectorOf<T>::mask Mask;
  constexpr int64_t n = lanes<T>();
#pragma GCC unroll 4
  for (int64_t half = n / 2; half > 0; half /= 2) {
    Mask low, high;
    for (int64_t i = 0; i < n; ++i) {
      low[i] = i & half ? n + i - half : i;
      high[i] = i & half ? n + i : i + half;
    }
#pragma GCC unroll 16
    for (int64_t i = 0; i < n; ++i) {
      if (i & half) continue;
      const Vec<T> a = rows[i], b = rows[i + half];
      rows[i] = shuffled<T>(a, b, low);
      rows[i + half] = shuffled<T>(a, b, high);
    }
  }
}

// All ones in the lanes below count.
template <class T>
SL_HD typename VectorOf<T>::mask lanes_below(int64_t count) {
  typename VectorOf<T>::mask index;
  for (int64_t i = 0; i < lanes<T>(); ++i) index[i] = i;
  return index < static_cast<decltype(index[0] + 0)>(count);
}

// e^x by 2^n e^r, |r| <= ln(2)/2, with a degree-6 polynomial (Cody and Waite): relative error under 2e-7.
SL_HD VectorOf<float>::type exp(VectorOf<float>::type x) {
  typedef VectorOf<float>::type V;
  typedef VectorOf<float>::mask I;
  const V lowest = splat(-87.0f), highest = splat(88.0f);
  x = x < lowest ? lowest : x;
  x = x > highest ? highest : x;
  const V shifter = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const V shifted = x * 1.44269504088896341f + shifter;
  const V n = shifted - shifter;
  const V r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  V p = splat(1.3981999507e-3f) + r * 1.9875691500e-4f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const I power = (reinterpret_cast<I>(shifted) + (127 - 0x4b400000)) << 23;
  return p * reinterpret_cast<V>(power);
}

SL_HD VectorOf<double>::type exp(VectorOf<double>::type x) {
  for (int64_t i = 0; i < lanes<double>(); ++i) x[i] = ::exp(x[i]);
  return x;
}

}  // namespace SL_ISA
}  // namespace styleloom
