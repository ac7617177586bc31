// Arguments of the neighbourhood attention kernels: one partition of heads, raw pointers and strides in elements.
#pragma once

#include <stdint.h>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace styleloom {

// Storage of 16-bit floats that needs no library; sums are held in float. Only GPU code computes with them.
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

// How the CPU cuts the work: one task is a band of rows of one dilation group of one head of one image. Fixed by the
// shapes alone, so that sums over tasks don't depend on the number of threads.
static inline int64_t band_rows(const Window& w) {
  const int64_t columns = (w.width + w.dilation_x - 1) / w.dilation_x;
  const int64_t members = (w.height + w.dilation_y - 1) / w.dilation_y;
  const int64_t fitting = 65536 / (columns * w.channels + 1);  // a few hundred KiB of packed keys and values
  const int64_t rows = fitting < w.kernel_y ? w.kernel_y : fitting;
  return rows < members ? rows : members;
}

static inline int64_t bands(const Window& w) {
  const int64_t members = (w.height + w.dilation_y - 1) / w.dilation_y;
  return (members + band_rows(w) - 1) / band_rows(w);
}

static inline int64_t task_count(const Window& w) {
  return w.batch * w.heads * w.dilation_y * w.dilation_x * bands(w);
}

// What a kernel doesn't use stays null.
template <class T>
struct AttentionArgs {
  typedef typename AccumulateIn<T>::type Sum;
  Window window;
  View<const T> q, k, v, grad_out;
  View<const T> weights;        // AV, AVT: [N, H, W, heads, Ky * Kx]
  View<T> out, grad_q, grad_k, grad_v;
  View<T> scores;               // QK: [N, H, W, heads, Ky * Kx]
  View<Sum> lse;                // written by forward, read by backward
  View<const Sum> delta;
  const Sum* rpb;               // [heads, 2 Ky - 1, 2 Kx - 1]
  Sum* grad_rpb;                // partial tables [tasks, 2 Ky - 1, 2 Kx - 1]; the binding sums them per head
};

}  // namespace styleloom
