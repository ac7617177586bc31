// What the CUDA sources offer to their binding: launchers that take raw pointers, sizes and a stream.
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

}  // namespace styleloom
