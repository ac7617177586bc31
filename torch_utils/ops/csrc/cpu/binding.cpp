// Registers the CPU kernels with PyTorch's dispatcher. The only CPU source that includes torch.

#include <ATen/Parallel.h>
#include <torch/library.h>

#include <memory>
#include <string>

#include "../binding/attention.h"
#include "kernels.h"

namespace styleloom {
namespace {

// The instruction set in use; STYLELOOM_OPS_ISA overrides it with one that the processor has.
std::string choose_isa() {
#ifdef __x86_64__
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  const char* wanted = std::getenv("STYLELOOM_OPS_ISA");
  const std::string name = wanted ? wanted : "";
  if (avx512 && name != "avx2" && name != "baseline") return "avx512";
  if (avx2 && name != "baseline") return "avx2";
#endif
  return "baseline";
}

std::string isa() {
  static const std::string chosen = choose_isa();
  return chosen;
}

const AttentionTable& attention() {
  static const AttentionTable table = [] {
#ifdef __x86_64__
    if (isa() == "avx512") return avx512::attention_table();
    if (isa() == "avx2") return avx2::attention_table();
#endif
    return baseline::attention_table();
  }();
  return table;
}

const AttentionKernels<float>& attention_kernels(float) { return attention().f32; }
const AttentionKernels<double>& attention_kernels(double) { return attention().f64; }

// Runs f(begin, end, scratch) over parts of [0, tasks), each thread with its own cache-aligned scratch.
template <class T, class F>
void parallel_tasks(int64_t tasks, int64_t scratch_size, F&& f) {
  at::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    constexpr size_t kLine = 64;
    const size_t bytes = (scratch_size * sizeof(T) + kLine - 1) / kLine * kLine;
    std::unique_ptr<void, void (*)(void*)> scratch(std::aligned_alloc(kLine, bytes), std::free);
    TORCH_CHECK(scratch, "out of memory: ", bytes, " bytes of scratch");
    f(begin, end, static_cast<T*>(scratch.get()));
  });
}

struct CpuDevice {
  static at::ScalarType kernel_type(at::ScalarType type) { return sum_type(type); }
  static int64_t bias_partials(const Window& w) { return task_count(w); }

  template <class T>
  static void run(Pass pass, const AttentionArgs<T>& args, const at::Tensor&) {
    if constexpr (std::is_same_v<T, typename AttentionArgs<T>::Sum>) {
      const AttentionKernels<T>& kernels = attention_kernels(T());
      const typename AttentionKernels<T>::Run by_pass[] = {kernels.forward, kernels.backward_query,
                                                           kernels.backward_key, kernels.qk, kernels.av, kernels.avt};
      const auto kernel = by_pass[static_cast<int>(pass)];
      parallel_tasks<T>(task_count(args.window), kernels.scratch_size(args.window),
                        [&](int64_t begin, int64_t end, T* scratch) { kernel(args, begin, end, scratch); });
    } else {
      TORCH_INTERNAL_ASSERT(false, "16-bit tensors reach the CPU kernels as float32");
    }
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(styleloom, CPU, m) {
  register_attention<CpuDevice>(m);
}

TORCH_LIBRARY_FRAGMENT(styleloom, m) { m.def("cpu_isa() -> str", isa); }

}  // namespace styleloom
