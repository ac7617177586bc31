// A stand-in for torch's header of this name: emulated kernels run on the CPU, whatever device is asked for.
#pragma once

#include <c10/core/Device.h>

namespace c10::cuda {
struct CUDAGuard {
  explicit CUDAGuard(Device) {}
};
}  // namespace c10::cuda
