// What lets one header serve g++ (every instruction set) and nvcc.
#pragma once

#include <stdint.h>

#ifdef __CUDACC__
#define SL_HD __host__ __device__ __forceinline__
#define SL_MEMBER __host__ __device__ __forceinline__
#else
#define SL_HD static inline __attribute__((always_inline))
#define SL_MEMBER inline __attribute__((always_inline))
#endif

// Every instruction set gets its own namespace: no inline function compiled for a newer processor may be the copy
// that the linker keeps for an older one.
#ifndef SL_ISA
#define SL_ISA portable
#endif

namespace styleloom {
namespace SL_ISA {

template <class T>
SL_HD T smaller(T a, T b) {
  return b < a ? b : a;
}

template <class T>
SL_HD T larger(T a, T b) {
  return a < b ? b : a;
}

SL_HD int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace SL_ISA
}  // namespace styleloom
