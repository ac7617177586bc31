// Arguments of the neighbourhood attention kernels: one partition of heads, raw pointers and strides in elements.
#pragma once

#include <stdint.h>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace styleloom {

// Storage of 16-bit floats that needs no library; sums are held in float. (What the CPU does with them: cpu/bfloat16.h.)
struct HalfBits {
  uint16_t bits;
  HalfBits() = default;
#ifdef __CUDACC__
  __device__ explicit HalfBits(float x) : bits(__half_as_ushort(__float2half_rn(x))) {}
  __device__ explicit operator float() const { return __half2float(__ushort_as_half(bits)); }
#endif
};
struct BFloat16Bits {
  uint16_t bits;
  BFloat16Bits() = default;
#ifdef __CUDACC__
  __device__ explicit BFloat16Bits(float x) : bits(__bfloat16_as_ushort(__float2bfloat16_rn(x))) {}
  __device__ explicit operator float() const { return __bfloat162float(__ushort_as_bfloat16(bits)); }
#endif
};
template <class T>
struct AccumulateIn {
  typedef T type;
};
template <>
struct AccumulateIn<HalfBits> {
  typedef float type;
};
template <>
struct AccumulateIn<BFloat16Bits> {
  typedef float type;
};

// A tensor [N, H, W, heads, D] whose channels are consecutive. Rows of scalars (lse, delta) have D = 1.
template <class T>
struct View {
  T* data;
  int64_t n, y, x, head;
};

struct Window {
  int64_t batch, height, width, heads, channels;
  int64_t kernel_y, kernel_x, dilation_y, dilation_x;
  double scale;
};

// What a kernel doesn't use stays null.
template <class T>
struct AttentionArgs {
  typedef T Element;
  typedef typename AccumulateIn<T>::type Sum;
  Window window;
  View<const T> q, k, v, grad_out;
  View<const T> weights;        // AV, AVT: [N, H, W, heads, Ky * Kx]
  View<T> out, grad_q, grad_k, grad_v;
  View<T> scores;               // QK: [N, H, W, heads, Ky * Kx]
  View<Sum> lse;                // written by forward, read by backward
  View<const Sum> delta;
  const Sum* rpb;               // [heads, 2 Ky - 1, 2 Kx - 1]
  Sum* grad_rpb;                // partial tables [tasks, 2 Ky - 1, 2 Kx - 1] that the binding sums per head
};

}  // namespace styleloom
