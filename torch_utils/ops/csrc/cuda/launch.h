// What the CUDA sources offer to their binding: launchers that take raw pointers, sizes and a stream; and the one
// function by which they start a kernel.
#pragma once

#include "../shared/activation.h"
#include "../shared/attention_args.h"
#include "../shared/resample.h"

namespace styleloom {

// `stream` is a cudaStream_t. T: float, double, HalfBits or BFloat16Bits.
template <class T>
void launch_na2d_forward(const AttentionArgs<T>& args, void* stream);
template <class T>
void launch_na2d_backward(const AttentionArgs<T>& args, void* stream);
template <class T>
void launch_na2d_qk(const AttentionArgs<T>& args, void* stream);
template <class T>
void launch_na2d_av(const AttentionArgs<T>& args, void* stream);
template <class T>
void launch_na2d_avt(const AttentionArgs<T>& args, void* stream);
template <class T>
void launch_bias_act(const BiasActArgs<T>& args, void* stream);
template <class T, class Sum>
void launch_upfirdn(const UpfirdnArgs<T, Sum>& args, void* stream);

// Row chunks into which the bias gradient of one head of one image is cut: fixed, so that its sum is reproducible.
constexpr int64_t kBiasChunks = 8;

#ifdef __CUDACC__
namespace gpu {

// A body is what a kernel computes: it holds the arguments, every thread calls it, and its constants kBlock and
// kBlocksPerMultiprocessor say how it is launched. So launch bounds and block size can't contradict each other.
template <class Body>
__global__ void __launch_bounds__(Body::kBlock, Body::kBlocksPerMultiprocessor) run(const Body body) {
  body();
}

// Starts a body on a grid of blocks. A launch that fails leaves its error for cudaGetLastError, where the binding looks.
template <class Body>
void launch(const Body& body, dim3 grid, void* stream) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(Body::kBlock);
  config.stream = static_cast<cudaStream_t>(stream);
  cudaLaunchKernelEx(&config, run<Body>, body);
}

}  // namespace gpu
#endif

}  // namespace styleloom
