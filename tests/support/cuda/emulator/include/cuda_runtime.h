// A stand-in for CUDA's header of this name: what the kernels of torch_utils/ops/csrc/cuda use of CUDA, executed on the
// CPU by ../emulator.cpp. Included ahead of every .cu file, as nvcc includes the real one.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <source_location>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
// Bounds are for the compiler; a launch's size is checked against the device's limits.
#define __launch_bounds__(...)
// Blocks run one after another on one thread of the system, so its storage serves as a block's. The emulator finds it
// as the thread-local data of this library and spoils it before each block.
#define __shared__ static thread_local

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3() = default;
  dim3(unsigned x_, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

typedef struct CUstream_st* cudaStream_t;
typedef int cudaError_t;

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

// Of the running thread; the emulator sets them whenever it switches.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace cuda_on_cpu {

using Site = std::source_location;

// A grid to execute: `call` is one thread's work.
struct Kernel {
  const char* name;
  void (*call)(const void* arguments);
  const void* arguments;
  const volatile char* anchor;  // in the thread-local data of the library that holds the kernel
};

static thread_local volatile char anchor;

void execute(const Kernel& kernel, const cudaLaunchConfig_t& config);
void wait_at_barrier(const Site& site);
uint64_t shuffle_xor(unsigned mask, uint64_t value, int lane_mask, int width, const Site& site);
void check_alignment(const void* address, size_t alignment);
bool add_instance(const char* name);

// Every instance of a kernel that the library holds, whether it is ever launched or not.
template <class Body>
struct Instance {
  static const char* name() { return __PRETTY_FUNCTION__; }
  static const bool is_listed;
};
template <class Body>
const bool Instance<Body>::is_listed = add_instance(Instance<Body>::name());

}  // namespace cuda_on_cpu

// Sixteen bytes that are read and written at once: CUDA faults where the address is not a multiple of 16.
struct alignas(16) uint4 {
  unsigned x, y, z, w;
  uint4() = default;
  uint4(const uint4& other) {
    cuda_on_cpu::check_alignment(&other, 16);
    memcpy(static_cast<void*>(this), &other, 16);
  }
  uint4& operator=(const uint4& other) {
    cuda_on_cpu::check_alignment(this, 16);
    cuda_on_cpu::check_alignment(&other, 16);
    memcpy(static_cast<void*>(this), &other, 16);
    return *this;
  }
};

template <class Body>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Body), const Body& body) {
  (void)cuda_on_cpu::Instance<Body>::is_listed;
  const struct Call {
    void (*kernel)(Body);
    const Body& body;
  } call = {kernel, body};
  cuda_on_cpu::execute({cuda_on_cpu::Instance<Body>::name(),
                        [](const void* c) {
                          const Call& call = *static_cast<const Call*>(c);
                          call.kernel(call.body);
                        },
                        &call, &cuda_on_cpu::anchor},
                       *config);
  return 0;
}

inline void __syncthreads(const cuda_on_cpu::Site site = cuda_on_cpu::Site::current()) {
  cuda_on_cpu::wait_at_barrier(site);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,
                  const cuda_on_cpu::Site site = cuda_on_cpu::Site::current()) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) <= 8, "CUDA shuffles arithmetic types");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  bits = cuda_on_cpu::shuffle_xor(mask, bits, lane_mask, width, site);
  memcpy(&value, &bits, sizeof(T));
  return value;
}
