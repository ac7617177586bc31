// upfirdn2d on GPUs: one thread per output, neighbours along x (or the channels) read neighbouring inputs through L1.

#define SL_ISA gpu
#include "launch.h"

namespace styleloom {
namespace gpu {
namespace {

template <class T, class Sum>
struct Outputs {
  static constexpr int kBlock = 256, kBlocksPerMultiprocessor = 1;
  UpfirdnArgs<T, Sum> a;
  int64_t count;

  __device__ __forceinline__ void operator()() const {
    const int64_t index = blockIdx.x * int64_t(kBlock) + threadIdx.x;
    if (index >= count) return;
    const int64_t pixel = a.p.channels == 1 ? index : index / a.p.channels;
    const int64_t ox = pixel % a.p.out_width, row = pixel / a.p.out_width;
    const int64_t channel = index - pixel * a.p.channels;
    a.y[index] = T(upfirdn_element(a, row / a.p.out_height, row % a.p.out_height, ox, channel));
  }
};

}  // namespace
}  // namespace gpu

template <class T, class Sum>
void launch_upfirdn(const UpfirdnArgs<T, Sum>& a, void* stream) {
  typedef gpu::Outputs<T, Sum> Body;
  const int64_t count = a.p.planes * a.p.out_height * a.p.out_width * a.p.channels;
  gpu::launch(Body{a, count}, unsigned(gpu::ceil_div(count, Body::kBlock)), stream);
}

template void launch_upfirdn<float, float>(const UpfirdnArgs<float, float>&, void*);
template void launch_upfirdn<double, double>(const UpfirdnArgs<double, double>&, void*);
template void launch_upfirdn<HalfBits, float>(const UpfirdnArgs<HalfBits, float>&, void*);
template void launch_upfirdn<BFloat16Bits, float>(const UpfirdnArgs<BFloat16Bits, float>&, void*);

}  // namespace styleloom
