// bfloat16 in memory, float in registers: one at a time, and by vectors.
#pragma once

#include "../shared/attention_args.h"
#include "vector.h"

namespace styleloom {
namespace SL_ISA {

typedef uint32_t VecOfBits __attribute__((vector_size(SL_VECTOR_BYTES)));
typedef uint16_t VecOfHalves __attribute__((vector_size(SL_VECTOR_BYTES / 2)));

// What is stored as T, in the type that sums are held in.
template <class T>
SL_HD T widen(T x) {
  return x;
}

SL_HD float widen(BFloat16Bits x) {
  const uint32_t bits = uint32_t(x.bits) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

// To what is stored as T: the nearest, halves to even; NaN stays NaN.
template <class T>
SL_HD T narrow(typename AccumulateIn<T>::type x) {
  return x;
}

template <>
inline __attribute__((always_inline)) BFloat16Bits narrow<BFloat16Bits>(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof(bits));
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  BFloat16Bits result;
  result.bits = uint16_t(x == x ? rounded : 0x7fc0);
  return result;
}

SL_HD Vec<float> load(const BFloat16Bits* p) {
  VecOfHalves halves;
  __builtin_memcpy(&halves, p, sizeof(halves));
  return reinterpret_cast<Vec<float>>(__builtin_convertvector(halves, VecOfBits) << 16);
}

// A vector's numbers as bfloat16 in the low halves of its words: the nearest, halves to even. The lower half of a NaN must
// be 0, as it is in those of the processor and of bfloat16.
SL_HD VecOfBits rounded(Vec<float> x) {
  const VecOfBits bits = reinterpret_cast<VecOfBits>(x);
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

SL_HD void store_halves(uint16_t* p, VecOfBits words) {
  const VecOfHalves halves = __builtin_convertvector(words, VecOfHalves);
  __builtin_memcpy(p, &halves, sizeof(halves));
}

// out[i] = x[i], i < count.
template <class T, class Sum>
SL_HD void narrow_row(const Sum* x, int64_t count, T* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = narrow<T>(x[i]);
}

}  // namespace SL_ISA
}  // namespace styleloom
