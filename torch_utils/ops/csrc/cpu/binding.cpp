// Registers the CPU kernels with PyTorch's dispatcher. The only CPU source that includes torch.

#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <memory>
#include <string>

#include "../binding/attention.h"
#include "../binding/images.h"
#include "attention/attention_tasks.h"
#include "huge_pages.h"
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

struct Tables {
  AttentionTable attention;
  BiasActTable bias_act;
  UpfirdnTable upfirdn;
};

#define SL_TABLES(isa) \
  Tables { isa::attention_table(), isa::bias_act_table(), isa::upfirdn_table() }

Tables choose_tables() {
#ifdef __x86_64__
  if (isa() == "avx512") return SL_TABLES(avx512);
  if (isa() == "avx2") return SL_TABLES(avx2);
#endif
  return SL_TABLES(baseline);
}

const Tables& tables() {
  static const Tables chosen = choose_tables();
  return chosen;
}

// The member of a table for elements stored as T.
template <class T, class Table>
const auto& of_type(const Table& table) {
  if constexpr (std::is_same_v<T, float>) {
    return table.f32;
  } else if constexpr (std::is_same_v<T, double>) {
    return table.f64;
  } else {
    return table.bf16;
  }
}

// float16 never reaches a kernel, bfloat16 no attention kernel (`kernel_type`, `image_type`).
template <class T>
constexpr bool kAttends = std::is_same_v<T, float> || std::is_same_v<T, double>;
template <class T>
constexpr bool kFilters = kAttends<T> || std::is_same_v<T, BFloat16Bits>;

// Runs f(begin, end, scratch) over parts of [0, tasks), each thread with its own cache-aligned scratch.
template <class T, class F>
void parallel_tasks(int64_t tasks, int64_t grain, int64_t scratch_size, F&& f) {
  at::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
    constexpr size_t kLine = 64;
    const size_t bytes = (scratch_size * sizeof(T) + kLine - 1) / kLine * kLine;
    std::unique_ptr<void, void (*)(void*)> scratch(std::aligned_alloc(kLine, bytes), std::free);
    TORCH_CHECK(scratch, "out of memory: ", bytes, " bytes of scratch");
    f(begin, end, static_cast<T*>(scratch.get()));
  });
}

struct CpuDevice {
  static constexpr bool kFactorises = true;
  static at::Tensor fresh(const at::Tensor& t) { return on_huge_pages(t); }
  static at::ScalarType kernel_type(at::ScalarType type) { return sum_type(type); }
  static at::ScalarType image_type(at::ScalarType type) { return type == at::kHalf ? at::kFloat : type; }
  static int64_t bias_partials(const Window& w) { return task_count(w); }

  template <class T>
  static void run(Pass pass, const AttentionArgs<T>& args, const at::Tensor&) {
    if constexpr (kAttends<T>) {
      const AttentionKernels<T>& kernels = of_type<T>(tables().attention);
      const AttentionKernel<T> by_pass[] = {kernels.forward, kernels.backward, kernels.qk, kernels.av, kernels.avt};
      const AttentionKernel<T>& kernel = by_pass[static_cast<int>(pass)];
      parallel_tasks<T>(task_count(args.window), 1, kernel.space(args.window),
                        [&](int64_t begin, int64_t end, T* scratch) { kernel.run(args, begin, end, scratch); });
    }
  }

  template <class T>
  static void bias_act(const BiasActArgs<T>& args, const at::Tensor&) {
    if constexpr (kFilters<T>) {
      constexpr int64_t kGrain = 16384;
      const auto kernel = of_type<T>(tables().bias_act);
      at::parallel_for(0, args.p.count, kGrain, [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
    }
  }

  template <class T, class Sum>
  static void upfirdn(const UpfirdnArgs<T, Sum>& args, const at::Tensor&) {
    if constexpr (kFilters<T>) {
      const UpfirdnKernel<T, Sum>& kernel = of_type<T>(tables().upfirdn);
      const int64_t grain = std::max<int64_t>(32 / args.p.channels, 1);  // rows
      parallel_tasks<Sum>(args.p.planes * args.p.out_height, grain, kernel.scratch_size(args.p),
                          [&](int64_t begin, int64_t end, Sum* scratch) { kernel.run(args, begin, end, scratch); });
    }
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(styleloom, CPU, m) {
  register_attention<CpuDevice>(m);
  register_images<CpuDevice>(m);
}

TORCH_LIBRARY_FRAGMENT(styleloom, m) { m.def("cpu_isa() -> str", isa); }

}  // namespace styleloom
