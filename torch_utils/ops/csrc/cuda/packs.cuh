// Values of neighbouring addresses that one thread reads and writes at once: 16 bytes, or a single value.
#pragma once

#include "../shared/attention_args.h"

namespace styleloom {
namespace gpu {
namespace {

template <class T>
constexpr int kFullPack = 16 / sizeof(T);

template <class T, int COUNT>
struct Pack {
  static_assert(COUNT == 1 || COUNT == kFullPack<T>, "a pack is one value or 16 bytes");
  T part[COUNT];

  // A full pack must lie at a multiple of 16 bytes.
  __device__ __forceinline__ static Pack load(const T* p) {
    Pack pack;
    if constexpr (COUNT == 1) {
      pack.part[0] = *p;
    } else {
      const uint4 raw = *reinterpret_cast<const uint4*>(p);
      const T* parts = reinterpret_cast<const T*>(&raw);
#pragma unroll
      for (int i = 0; i < COUNT; ++i) pack.part[i] = parts[i];
    }
    return pack;
  }

  __device__ __forceinline__ void store(T* p) const {
    if constexpr (COUNT == 1) {
      *p = part[0];
    } else {
      uint4 raw;
      T* parts = reinterpret_cast<T*>(&raw);
#pragma unroll
      for (int i = 0; i < COUNT; ++i) parts[i] = part[i];
      *reinterpret_cast<uint4*>(p) = raw;
    }
  }
};

}  // namespace
}  // namespace gpu
}  // namespace styleloom
