// A stand-in for CUDA's header of this name: float16 as bits, rounded to nearest, ties to even.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

struct __half {
  uint16_t bits;
};

inline __half __ushort_as_half(uint16_t bits) { return {bits}; }
inline uint16_t __half_as_ushort(__half x) { return x.bits; }

inline float __half2float(__half x) {
  const int exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
  const float sign = x.bits & 0x8000 ? -1.0f : 1.0f;
  if (exponent == 31) return sign * (fraction ? NAN : INFINITY);
  return sign * (exponent ? ldexpf(float(1024 + fraction), exponent - 25) : ldexpf(float(fraction), -24));
}

inline __half __float2half_rn(float x) {
  const uint16_t sign = signbit(x) ? 0x8000 : 0;
  if (isnan(x)) return {0x7fff};
  const float size = fabsf(x);
  if (size == 0) return {sign};
  if (size >= 65520.0f) return {uint16_t(sign | 0x7c00)};
  int exponent = 0;
  frexpf(size, &exponent);                       // size = f * 2^exponent, f in [0.5, 1)
  const int unit = (exponent < -13 ? -13 : exponent) - 11;  // of the last place; below 2^-14 numbers are subnormal
  const int steps = int(nearbyintf(ldexpf(size, -unit)));   // up to 2048: rounding may carry into the exponent
  return {uint16_t(sign | ((unit + 24) * 1024 + steps))};
}
