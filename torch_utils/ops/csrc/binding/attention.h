// Neighbourhood attention between the dispatcher and the kernels of one device.
//
// A Device offers `run(Pass, args, tensor on it)`, `kernel_type(dtype)`, the dtype that its kernels want, and
// `bias_partials(window)`, the number of tables that its backward pass leaves to be summed.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

#include <optional>
#include <tuple>
#include <vector>

#include "tensors.h"

namespace styleloom {

enum class Pass { forward, backward, qk, av, avt };

using OptionalTensor = std::optional<at::Tensor>;

constexpr int64_t kPartitionInts = 5;  // heads, kernel y, kernel x, dilation y, dilation x

// Calls f(T()) with the storage type of a dtype that kernels know.
template <class F>
void with_type(at::ScalarType type, F&& f) {
  switch (type) {
    case at::kFloat: return f(float());
    case at::kDouble: return f(double());
    case at::kHalf: return f(HalfBits());
    case at::kBFloat16: return f(BFloat16Bits());
    default: TORCH_CHECK_NOT_IMPLEMENTED(false, "neighbourhood attention: no kernel for ", type);
  }
}

inline Window window_of(const at::Tensor& q, at::IntArrayRef sizes, double scale) {
  return Window{q.size(0), q.size(1), q.size(2), sizes[0],  q.size(4), sizes[1],
                sizes[2],  sizes[3],  sizes[4],  scale};
}

// Of the bias table of one head.
inline int64_t bias_entries(const Window& w) { return (2 * w.kernel_y - 1) * (2 * w.kernel_x - 1); }

template <class Device>
at::Tensor prepared(const at::Tensor& t) {
  return with_dense_channels(t.to(Device::kernel_type(t.scalar_type())));
}

// What the forward and the backward pass read, in the kernels' dtype.
template <class Device>
struct Operands {
  at::Tensor q, k, v, rpb;
  at::TensorOptions sums;  // of sums, bias tables and log-sum-exps

  Operands(const at::Tensor& q_in, const at::Tensor& k_in, const at::Tensor& v_in, const OptionalTensor& rpb_in)
      : q(prepared<Device>(q_in)), k(prepared<Device>(k_in)), v(prepared<Device>(v_in)),
        sums(q.options().dtype(sum_type(q.scalar_type()))) {
    if (rpb_in) rpb = rpb_in->to(sums.dtype().toScalarType()).contiguous();
  }

  // Calls f(arguments that hold window, q, k, v and bias; first head) for every partition.
  template <class F>
  void for_partitions(at::IntArrayRef partitions, double scale, F&& f) const {
    if (q.numel() == 0) return;
    with_type(q.scalar_type(), [&](auto type) {
      using Args = AttentionArgs<decltype(type)>;
      int64_t head = 0, entry = 0;
      for (size_t i = 0; i < partitions.size(); i += kPartitionInts) {
        const auto sizes = partitions.slice(i, kPartitionInts);
        Args args = {};
        args.window = window_of(q, sizes, scale);
        args.q = view_of<const typename Args::Element>(q, head);
        args.k = view_of<const typename Args::Element>(k, head);
        args.v = view_of<const typename Args::Element>(v, head);
        if (rpb.defined()) args.rpb = static_cast<const typename Args::Sum*>(rpb.const_data_ptr()) + entry;
        f(args, head);
        head += args.window.heads;
        entry += args.window.heads * bias_entries(args.window);
      }
    });
  }
};

template <class Device>
std::tuple<at::Tensor, at::Tensor> na2d_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                const OptionalTensor& rpb, at::IntArrayRef partitions, double scale) {
  const Operands<Device> in(q, k, v, rpb);
  const at::Tensor out = at::empty(q.sizes(), in.q.options()), lse = at::empty(q.sizes().slice(0, 4), in.sums);
  in.for_partitions(partitions, scale, [&](auto args, int64_t head) {
    using Args = decltype(args);
    args.out = view_of<typename Args::Element>(out, head);
    args.lse = view_of<typename Args::Sum>(lse, head);
    Device::run(Pass::forward, args, in.q);
  });
  return {out.to(q.scalar_type()), lse};
}

// Sums the tasks' partial tables of one partition in their order -> [heads * table].
inline at::Tensor reduce_partials(const at::Tensor& partials, const Window& w) {
  return partials.view({w.batch, w.heads, -1, partials.size(1)}).sum({0, 2}).flatten();
}

template <class Device>
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> na2d_backward(
    const at::Tensor& grad_in, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const OptionalTensor& rpb,
    const at::Tensor& lse_in, const at::Tensor& delta_in, at::IntArrayRef partitions, double scale) {
  const Operands<Device> in(q, k, v, rpb);
  const at::Tensor grad_out = prepared<Device>(grad_in), lse = lse_in.contiguous(), delta = delta_in.contiguous();
  const auto like = in.q.options();
  const at::Tensor grad_q = at::empty(q.sizes(), like), grad_k = at::empty(q.sizes(), like),
                   grad_v = at::empty(q.sizes(), like);
  std::vector<at::Tensor> grad_rpb = {at::zeros({q.numel() == 0 && rpb ? rpb->numel() : 0}, in.sums)};
  in.for_partitions(partitions, scale, [&](auto args, int64_t head) {
    using T = typename decltype(args)::Element;
    using Sum = typename decltype(args)::Sum;
    args.grad_out = view_of<const T>(grad_out, head);
    args.grad_q = view_of<T>(grad_q, head);
    args.grad_k = view_of<T>(grad_k, head);
    args.grad_v = view_of<T>(grad_v, head);
    args.lse = view_of<Sum>(lse, head);
    args.delta = view_of<const Sum>(delta, head);
    at::Tensor partials;
    if (rpb) {
      partials = at::empty({Device::bias_partials(args.window), bias_entries(args.window)}, in.sums);
      args.grad_rpb = static_cast<Sum*>(partials.mutable_data_ptr());
    }
    Device::run(Pass::backward, args, in.q);
    if (rpb) grad_rpb.push_back(reduce_partials(partials, args.window));
  });
  const auto type = q.scalar_type();
  return {grad_q.to(type), grad_k.to(type), grad_v.to(type), at::cat(grad_rpb).to(rpb ? rpb->scalar_type() : type)};
}

inline std::vector<int64_t> one_partition(const at::Tensor& x, at::IntArrayRef window) {
  return {x.size(3), window[0], window[1], window[2], window[3]};
}

template <class Device>
at::Tensor na2d_qk(const at::Tensor& q_in, const at::Tensor& k_in, at::IntArrayRef window) {
  const at::Tensor q = prepared<Device>(q_in), k = prepared<Device>(k_in);
  const at::Tensor scores = at::empty({q.size(0), q.size(1), q.size(2), q.size(3), window[0] * window[1]}, q.options());
  if (scores.numel() == 0) return scores.to(q_in.scalar_type());
  with_type(q.scalar_type(), [&](auto type) {
    using T = decltype(type);
    AttentionArgs<T> args = {};
    args.window = window_of(q, one_partition(q, window), 1.0);
    args.q = view_of<const T>(q, 0);
    args.k = view_of<const T>(k, 0);
    args.scores = view_of<T>(scores, 0);
    Device::run(Pass::qk, args, q);
  });
  return scores.to(q_in.scalar_type());
}

// `transposed` false: out_i = sum of weights[i][j] x_j over the window of i; true: out_j = sum over the queries i.
template <class Device, bool transposed>
at::Tensor na2d_weighted(const at::Tensor& weights_in, const at::Tensor& x_in, at::IntArrayRef window) {
  const at::Tensor weights = prepared<Device>(weights_in), x = prepared<Device>(x_in);
  const at::Tensor out = at::empty(x.sizes(), x.options());
  if (out.numel() == 0) return out.to(x_in.scalar_type());
  with_type(x.scalar_type(), [&](auto type) {
    using T = decltype(type);
    AttentionArgs<T> args = {};
    args.window = window_of(x, one_partition(x, window), 1.0);
    args.weights = view_of<const T>(weights, 0);
    args.v = view_of<const T>(x, 0);
    args.out = view_of<T>(out, 0);
    Device::run(transposed ? Pass::avt : Pass::av, args, x);
  });
  return out.to(x_in.scalar_type());
}

template <class Device, class Library>
void register_attention(Library& m) {
  m.impl("na2d", na2d_forward<Device>);
  m.impl("na2d_backward", na2d_backward<Device>);
  m.impl("na2d_qk", na2d_qk<Device>);
  m.impl("na2d_av", na2d_weighted<Device, false>);
  m.impl("na2d_avt", na2d_weighted<Device, true>);
}

}  // namespace styleloom
