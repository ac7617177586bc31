// Registers the CUDA kernels with PyTorch's dispatcher. The only CUDA source that includes torch.

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "../binding/attention.h"
#include "../binding/images.h"
#include "launch.h"

namespace styleloom {
namespace {

// Runs a launcher on the tensor's device and its current stream, and reports a failed launch.
template <class F>
void on_device_of(const at::Tensor& t, F&& launch) {
  const c10::cuda::CUDAGuard guard(t.device());
  launch(static_cast<void*>(c10::cuda::getCurrentCUDAStream().stream()));
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

struct CudaDevice {
  static constexpr bool kFactorises = false;
  static at::Tensor fresh(const at::Tensor& t) { return t; }
  static at::ScalarType kernel_type(at::ScalarType type) { return type; }
  static at::ScalarType image_type(at::ScalarType type) { return type; }
  static int64_t bias_partials(const Window& w) { return w.batch * w.heads * kBiasChunks; }

  template <class T>
  static void run(Pass pass, const AttentionArgs<T>& args, const at::Tensor& like) {
    void (*const by_pass[])(const AttentionArgs<T>&, void*) = {
        launch_na2d_forward<T>, launch_na2d_backward<T>, launch_na2d_qk<T>, launch_na2d_av<T>, launch_na2d_avt<T>};
    on_device_of(like, [&](void* stream) { by_pass[static_cast<int>(pass)](args, stream); });
  }

  template <class T>
  static void bias_act(const BiasActArgs<T>& args, const at::Tensor& like) {
    on_device_of(like, [&](void* stream) { launch_bias_act(args, stream); });
  }

  template <class T, class Sum>
  static void upfirdn(const UpfirdnArgs<T, Sum>& args, const at::Tensor& like) {
    on_device_of(like, [&](void* stream) { launch_upfirdn(args, stream); });
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(styleloom, CUDA, m) {
  register_attention<CudaDevice>(m);
  register_images<CudaDevice>(m);
}

}  // namespace styleloom
