// bias_act on GPUs: one thread per 16 bytes, the arithmetic of shared/activation.h.

#define SL_ISA gpu
#include "launch.h"
#include "packs.cuh"

namespace styleloom {
namespace gpu {
namespace {

template <class T, int order>
__device__ __forceinline__ typename AccumulateIn<T>::type element(const BiasActArgs<T>& a, T x, T b, T g, T g2) {
  typedef typename AccumulateIn<T>::type S;
  const S alpha = S(a.p.alpha), gain = S(a.p.gain), clamp = S(a.p.clamp);
#define SL_ACT(act) \
  case act: return bias_act_element<S, act, order>(S(x), S(b), S(g), S(g2), alpha, gain, clamp, a.p.from_output);
  switch (a.p.act) {
    SL_ACT(kRelu) SL_ACT(kLrelu) SL_ACT(kTanh) SL_ACT(kSigmoid) SL_ACT(kElu) SL_ACT(kSelu) SL_ACT(kSoftplus) SL_ACT(kSwish)
    default: return bias_act_element<S, kLinear, order>(S(x), S(b), S(g), S(g2), alpha, gain, clamp, a.p.from_output);
  }
#undef SL_ACT
}

// WIDE elements per thread that share one bias value, or (bias_stride 1) take WIDE consecutive ones.
template <class T, int order, int WIDE>
struct Elements {
  static constexpr int kBlock = 256, kBlocksPerMultiprocessor = 1;
  BiasActArgs<T> a;

  __device__ __forceinline__ void operator()() const {
    typedef Pack<T, WIDE> P;
    const int64_t i = (blockIdx.x * int64_t(kBlock) + threadIdx.x) * WIDE;
    if (i >= a.p.count) return;
    const P zero = {}, x = P::load(a.x + i);
    const P g = order > 0 ? P::load(a.g + i) : zero;
    const P g2 = order > 1 ? P::load(a.g2 + i) : zero;
    const int64_t first_bias = a.p.bias_size > 0 ? i / a.p.bias_stride % a.p.bias_size : 0;
    P y;
#pragma unroll
    for (int k = 0; k < WIDE; ++k) {
      const T b = a.p.bias_size > 0 ? a.bias[first_bias + (a.p.bias_stride == 1 ? k : 0)] : T(0.0f);
      y.part[k] = T(element<T, order>(a, x.part[k], b, g.part[k], g2.part[k]));
    }
    y.store(a.y + i);
  }
};

template <class T, int order, int WIDE>
void launch_elements(const BiasActArgs<T>& a, void* stream) {
  typedef Elements<T, order, WIDE> Body;
  launch(Body{a}, unsigned(ceil_div(a.p.count / WIDE, Body::kBlock)), stream);
}

template <class T, int order>
void launch_order(const BiasActArgs<T>& a, void* stream) {
  constexpr int wide = kFullPack<T>;
  const int64_t run = a.p.bias_size == 0 ? a.p.count : (a.p.bias_stride == 1 ? a.p.bias_size : a.p.bias_stride);
  const uintptr_t addresses = reinterpret_cast<uintptr_t>(a.x) | reinterpret_cast<uintptr_t>(a.y) |
                              reinterpret_cast<uintptr_t>(a.g) | reinterpret_cast<uintptr_t>(a.g2);
  const bool is_wide = a.p.count % wide == 0 && run % wide == 0 && addresses % 16 == 0;
  is_wide ? launch_elements<T, order, wide>(a, stream) : launch_elements<T, order, 1>(a, stream);
}

}  // namespace
}  // namespace gpu

template <class T>
void launch_bias_act(const BiasActArgs<T>& a, void* stream) {
  if (a.p.order == 0) return gpu::launch_order<T, 0>(a, stream);
  if (a.p.order == 1) return gpu::launch_order<T, 1>(a, stream);
  gpu::launch_order<T, 2>(a, stream);
}

template void launch_bias_act<float>(const BiasActArgs<float>&, void*);
template void launch_bias_act<double>(const BiasActArgs<double>&, void*);
template void launch_bias_act<HalfBits>(const BiasActArgs<HalfBits>&, void*);
template void launch_bias_act<BFloat16Bits>(const BiasActArgs<BFloat16Bits>&, void*);

}  // namespace styleloom
