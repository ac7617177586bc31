// From torch tensors to the plain structs that kernels take.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/Exception.h>

#include "../shared/attention_args.h"

namespace styleloom {

// The tensor itself, or a copy, with consecutive channels on the last axis.
inline at::Tensor with_dense_channels(const at::Tensor& t) {
  return t.size(-1) <= 1 || t.stride(-1) == 1 ? t : t.contiguous();
}

// Sums are held in float32 for 16-bit types.
inline at::ScalarType sum_type(at::ScalarType type) {
  return type == at::kHalf || type == at::kBFloat16 ? at::kFloat : type;
}

template <class T>
View<T> view_of(const at::Tensor& t, int64_t first_head) {
  T* data = static_cast<T*>(const_cast<void*>(t.const_data_ptr()));
  return View<T>{data + first_head * t.stride(3), t.stride(0), t.stride(1), t.stride(2), t.stride(3)};
}

}  // namespace styleloom
