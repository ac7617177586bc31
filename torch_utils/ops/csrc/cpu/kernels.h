// The tables of kernels that each instruction set offers; the binding picks one at run time.
#pragma once

#include "../shared/activation.h"
#include "../shared/attention_args.h"
#include "../shared/resample.h"

namespace styleloom {

// Runs tasks [begin, end) with `space` elements of private memory.
template <class T>
struct AttentionKernel {
  void (*run)(const AttentionArgs<T>& args, int64_t begin, int64_t end, T* scratch);
  int64_t (*space)(const Window& window);
};

template <class T>
struct AttentionKernels {
  AttentionKernel<T> forward, backward, qk, av, avt;
};

struct AttentionTable {
  AttentionKernels<float> f32;
  AttentionKernels<double> f64;
};

// Elements [begin, end) in memory order.
struct BiasActTable {
  void (*f32)(const BiasActArgs<float>& args, int64_t begin, int64_t end);
  void (*f64)(const BiasActArgs<double>& args, int64_t begin, int64_t end);
  void (*bf16)(const BiasActArgs<BFloat16Bits>& args, int64_t begin, int64_t end);
};

// Output rows [begin, end), plane after plane. Scratch is counted in elements of Sum.
template <class T, class Sum>
struct UpfirdnKernel {
  int64_t (*scratch_size)(const UpfirdnParams& params);
  void (*run)(const UpfirdnArgs<T, Sum>& args, int64_t begin, int64_t end, Sum* scratch);
};

struct UpfirdnTable {
  UpfirdnKernel<float, float> f32;
  UpfirdnKernel<double, double> f64;
  UpfirdnKernel<BFloat16Bits, float> bf16;
};

#define SL_DECLARE(isa)             \
  namespace isa {                   \
  AttentionTable attention_table(); \
  BiasActTable bias_act_table();    \
  UpfirdnTable upfirdn_table();     \
  }
SL_DECLARE(baseline)
#ifdef __x86_64__
SL_DECLARE(avx2)
SL_DECLARE(avx512)
#endif
#undef SL_DECLARE

}  // namespace styleloom
