// The tables of kernels that each instruction set offers; the binding picks one at run time.
#pragma once

#include "../shared/attention_args.h"

namespace styleloom {

// Each runs tasks [begin, end) with `scratch_size` elements of private memory.
template <class T>
struct AttentionKernels {
  typedef void (*Run)(const AttentionArgs<T>& args, int64_t begin, int64_t end, T* scratch);
  int64_t (*scratch_size)(const Window& window);
  Run forward, backward_query, backward_key, qk, av, avt;
};

struct AttentionTable {
  AttentionKernels<float> f32;
  AttentionKernels<double> f64;
};

#define SL_DECLARE(isa)             \
  namespace isa {                   \
  AttentionTable attention_table(); \
  }
SL_DECLARE(baseline)
#ifdef __x86_64__
SL_DECLARE(avx2)
SL_DECLARE(avx512)
#endif
#undef SL_DECLARE

}  // namespace styleloom
