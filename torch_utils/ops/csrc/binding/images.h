// bias_act and upfirdn2d between the dispatcher and the kernels of one device.
//
// A Device offers `bias_act(args, tensor on it)`, `upfirdn(args, tensor)`, `image_type(dtype)`, `fresh(tensor)`, which
// prepares new memory for results, and `kFactorises`: whether its upfirdn finds the passes of a 2-D filter itself.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>

#include <cmath>
#include <optional>

#include "../shared/activation.h"
#include "../shared/resample.h"
#include "attention.h"

namespace styleloom {

// t in exactly the memory order of `like`, copied only if it isn't.
inline at::Tensor in_order_of(const at::Tensor& t, const at::Tensor& like) {
  if (t.strides() == like.strides() && t.scalar_type() == like.scalar_type()) return t;
  at::Tensor copy = at::empty_like(like);
  copy.copy_(t);
  return copy;
}

struct BiasActOptions {
  int64_t dim, act;
  double alpha, gain;
  std::optional<double> clamp;
  int order;
  bool from_output;
};

template <class T, class Sum>
const Sum* data_or_null(const at::Tensor& t) {
  return t.defined() ? static_cast<const Sum*>(t.const_data_ptr()) : nullptr;
}

// The bound from which on an output stored as `type` tells that it was clamped. A 16-bit type may round the clamp down,
// and what was clamped then lies below the clamp itself. (NaN, no clamp, stays NaN.)
inline double stored_clamp(double clamp, at::ScalarType type) {
  double stored = clamp;
  if (type == at::kHalf) stored = static_cast<float>(at::Half(static_cast<float>(clamp)));
  if (type == at::kBFloat16) stored = static_cast<float>(at::BFloat16(static_cast<float>(clamp)));
  return stored < clamp ? stored : clamp;
}

template <class Device>
at::Tensor run_bias_act(const at::Tensor& x_in, const OptionalTensor& b_in, const OptionalTensor& g_in,
                        const OptionalTensor& g2_in, const BiasActOptions& options) {
  at::Tensor x = x_in.to(Device::image_type(x_in.scalar_type()));
  if (!x.is_non_overlapping_and_dense()) x = x.contiguous();
  const at::Tensor b = b_in ? b_in->to(x.scalar_type()).contiguous() : at::Tensor();
  const at::Tensor g = g_in ? in_order_of(*g_in, x) : at::Tensor();
  const at::Tensor g2 = g2_in ? in_order_of(*g2_in, x) : at::Tensor();
  const at::Tensor y = Device::fresh(at::empty_like(x));
  BiasActParams p = {};
  p.count = x.numel();
  p.bias_stride = b.defined() ? x.stride(options.dim) : 1;
  p.bias_size = b.defined() ? b.numel() : 0;
  p.alpha = options.alpha;
  p.gain = options.gain;
  p.clamp = options.clamp.value_or(NAN);
  if (options.from_output) p.clamp = stored_clamp(p.clamp, x_in.scalar_type());
  p.act = static_cast<int>(options.act);
  p.order = options.order;
  p.from_output = options.from_output;
  if (p.count > 0) with_type(x.scalar_type(), [&](auto type) {
    using T = decltype(type);
    const BiasActArgs<T> args = {p, data_or_null<T, T>(x), data_or_null<T, T>(b), data_or_null<T, T>(g),
                                 data_or_null<T, T>(g2), static_cast<T*>(y.mutable_data_ptr())};
    Device::bias_act(args, x);
  });
  return y.to(x_in.scalar_type());
}

template <class Device>
at::Tensor bias_act(const at::Tensor& x, const OptionalTensor& b, int64_t dim, int64_t act, double alpha, double gain,
                    std::optional<double> clamp) {
  return run_bias_act<Device>(x, b, {}, {}, {dim, act, alpha, gain, clamp, 0, false});
}

template <class Device>
at::Tensor bias_act_grad(const at::Tensor& g, const OptionalTensor& g2, const at::Tensor& x, const OptionalTensor& b,
                         int64_t dim, int64_t act, double alpha, double gain, std::optional<double> clamp,
                         bool from_output) {
  return run_bias_act<Device>(x, b, g, g2, {dim, act, alpha, gain, clamp, g2 ? 2 : 1, from_output});
}

// The memory format that upfirdn2d reads and writes. Below 8 channels (images) nothing is gained by their coming last.
inline at::MemoryFormat filtered_format(const at::Tensor& x) {
  const bool last = x.size(1) >= 8 && x.is_contiguous(at::MemoryFormat::ChannelsLast) && !x.is_contiguous();
  return last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
}

template <class Device>
at::Tensor run_upfirdn(const at::Tensor& x_in, const at::Tensor& f, UpfirdnParams params) {
  const at::MemoryFormat format = filtered_format(x_in);
  const at::Tensor x = x_in.to(Device::image_type(x_in.scalar_type())).contiguous(format);
  const at::Tensor y = Device::fresh(at::empty({x.size(0), x.size(1), params.out_height, params.out_width},
                                               x.options().memory_format(format)));
  params.channels = format == at::MemoryFormat::ChannelsLast ? x.size(1) : 1;
  params.planes = x.size(0) * x.size(1) / params.channels;
  if (y.numel() > 0) with_type(x.scalar_type(), [&](auto type) {
    using T = decltype(type);
    using Sum = typename AccumulateIn<T>::type;
    const at::Tensor taps = f.to(sum_type(x.scalar_type())).contiguous();
    const UpfirdnArgs<T, Sum> args = {params, data_or_null<T, T>(x), data_or_null<Sum, Sum>(taps),
                                      static_cast<T*>(y.mutable_data_ptr())};
    Device::upfirdn(args, x);
  });
  return y.to(x_in.scalar_type());
}

inline int64_t filtered_size(int64_t size, int64_t up, int64_t down, int64_t pad, int64_t taps) {
  return (size * up + pad - taps) / down + 1;
}

// up and down are (x, y), padding (x0, x1, y0, y1). A one-dimensional filter is one along x and along y: if
// the device doesn't factorise, two passes through memory.
template <class Device>
at::Tensor upfirdn2d(const at::Tensor& x, const at::Tensor& f_in, at::IntArrayRef up, at::IntArrayRef down,
                     at::IntArrayRef padding, bool flip_filter, double gain) {
  at::Tensor f = f_in.to(sum_type(x.scalar_type()));
  if (Device::kFactorises && f.dim() == 1) f = f.outer(f);
  if (!flip_filter) f = f.dim() == 2 ? f.flip({0, 1}) : f.flip({0});
  const int64_t taps_x = f.size(-1), taps_y = f.size(0);
  UpfirdnParams p = {};
  p.height = x.size(2);
  p.width = x.size(3);
  p.out_height = f.dim() == 2 ? filtered_size(p.height, up[1], down[1], padding[2] + padding[3], taps_y) : p.height;
  p.out_width = filtered_size(p.width, up[0], down[0], padding[0] + padding[1], taps_x);
  p.up_x = up[0];
  p.up_y = f.dim() == 2 ? up[1] : 1;
  p.down_x = down[0];
  p.down_y = f.dim() == 2 ? down[1] : 1;
  p.pad_x = padding[0];
  p.pad_y = f.dim() == 2 ? padding[2] : 0;
  p.taps_x = taps_x;
  p.taps_y = f.dim() == 2 ? taps_y : 1;
  const at::Tensor first = run_upfirdn<Device>(x, f.mul(gain), p);
  if (f.dim() == 2) return first;
  p.width = p.out_width;
  p.out_height = filtered_size(p.height, up[1], down[1], padding[2] + padding[3], taps_y);
  p.up_x = p.down_x = p.taps_x = 1;
  p.pad_x = 0;
  p.up_y = up[1];
  p.down_y = down[1];
  p.pad_y = padding[2];
  p.taps_y = taps_y;
  return run_upfirdn<Device>(first, f, p);
}

template <class Device, class Library>
void register_images(Library& m) {
  m.impl("bias_act", bias_act<Device>);
  m.impl("bias_act_grad", bias_act_grad<Device>);
  m.impl("upfirdn2d", upfirdn2d<Device>);
}

}  // namespace styleloom
