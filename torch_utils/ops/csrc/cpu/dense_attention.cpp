// The backward pass of dense attention in bfloat16 on processors with matrix units: blocks of keys by queries, whose five
// products are oneDNN's by way of torch (brgemm), and what is between the products stays in the cache. (Dao et al. 2022,
// "FlashAttention", algorithm 4.) torch's own pass is about half as fast there, and a tenth as fast for short sequences.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/native/CPUBlas.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cmath>
#include <memory>

#include "dense_rows.h"

namespace styleloom {
namespace {

#if defined(__x86_64__) && defined(CPUBLAS_BRGEMM_BF16BF16F32)

// Sizes of one head, and how they are cut into blocks.
struct Sizes {
  int64_t queries, keys, channels, query_block, key_block;
};

int64_t block_of(int64_t length) {
  int64_t block = 256;
  while (length % block) block /= 2;
  return block;
}

// One head of a tensor [N, heads, L, D] of bfloat16, its channels consecutive.
struct Head {
  uint16_t* data;
  int64_t stride;

  Head(const at::Tensor& t, int64_t n, int64_t head)
      : data(static_cast<uint16_t*>(const_cast<void*>(t.const_data_ptr())) + n * t.stride(0) + head * t.stride(1)),
        stride(t.stride(2)) {}
  uint16_t* row(int64_t i) const { return data + i * stride; }
};

// out [m, n] (+)= a [m, k] b [k, n], b in pairs of rows.
void product(int64_t m, int64_t n, int64_t k, const uint16_t* a, int64_t stride, const uint32_t* b, bool adds,
             float* out) {
  at::native::cpublas::brgemm(m, n, k, stride, n, n, adds, reinterpret_cast<const at::BFloat16*>(a),
                              reinterpret_cast<const at::BFloat16*>(b), out);
}

// The memory of one thread.
class Scratch {
 public:
  explicit Scratch(const Sizes& s)
      : memory_(std::aligned_alloc(kLine, bytes(s)), std::free), next_(static_cast<char*>(memory_.get())) {
    TORCH_CHECK(memory_, "out of memory: ", bytes(s), " bytes of scratch");
    const int64_t block = s.key_block * s.query_block, of_queries = s.queries * s.channels;
    scores = take<float>(block);
    dp = take<float>(block);
    by_row = take<uint16_t>(block);
    by_pair = take<uint32_t>(block / 2);
    for (uint32_t** packed : {&q_pairs, &q_transposed, &grad_pairs, &grad_transposed}) *packed = take<uint32_t>(of_queries / 2);
    k_transposed = take<uint16_t>(s.keys * s.channels);
    dq = take<float>(of_queries);
    dk = take<float>(s.key_block * s.channels);
    dv = take<float>(s.key_block * s.channels);
  }

  float *scores, *dp, *dq, *dk, *dv;
  uint16_t *by_row, *k_transposed;
  uint32_t *by_pair, *q_pairs, *q_transposed, *grad_pairs, *grad_transposed;

 private:
  static constexpr int64_t kLine = 64;

  static int64_t bytes(const Sizes& s) {
    const int64_t block = s.key_block * s.query_block, blocks = 12 * block + 8 * s.key_block * s.channels;
    return (blocks + 12 * s.queries * s.channels + 2 * s.keys * s.channels + 16 * kLine) / kLine * kLine;
  }

  template <class T>
  T* take(int64_t count) {
    T* piece = reinterpret_cast<T*>(next_);
    next_ += (count * int64_t(sizeof(T)) + kLine - 1) / kLine * kLine;
    return piece;
  }

  std::unique_ptr<void, void (*)(void*)> memory_;
  char* next_;
};

struct HeadGradient {
  Sizes s;
  float scale;
  Head q, k, v, grad_out, grad_q, grad_k, grad_v;
  const float *lse, *delta;  // [queries]

  void run(Scratch& m) const {
    prepare(m);
    for (int64_t key = 0; key < s.keys; key += s.key_block) {
      for (int64_t query = 0; query < s.queries; query += s.query_block) block(m, key, query);
      dense::to_bfloat16(m.dk, s.key_block, s.channels, false, grad_k.row(key), grad_k.stride);
      dense::to_bfloat16(m.dv, s.key_block, s.channels, false, grad_v.row(key), grad_v.stride);
    }
    for (int64_t query = 0; query < s.queries; query += s.query_block) {
      dense::to_bfloat16(m.dq + query * s.channels, s.query_block, s.channels, true, grad_q.row(query), grad_q.stride);
    }
  }

 private:
  // The right-hand sides of the products, block by block.
  void prepare(Scratch& m) const {
    for (int64_t i = 0; i < s.queries; i += s.query_block) {
      const int64_t at = i * s.channels / 2;
      dense::pair_rows(q.row(i), q.stride, s.query_block, s.channels, m.q_pairs + at);
      dense::pair_rows(grad_out.row(i), grad_out.stride, s.query_block, s.channels, m.grad_pairs + at);
      dense::pair_transposed(q.row(i), q.stride, s.query_block, s.channels, m.q_transposed + at);
      dense::pair_transposed(grad_out.row(i), grad_out.stride, s.query_block, s.channels, m.grad_transposed + at);
    }
    dense::transpose(k.data, k.stride, s.keys, s.channels, m.k_transposed, s.keys);
  }

  void block(Scratch& m, int64_t key, int64_t query) const {
    const int64_t rows = s.key_block, columns = s.query_block, d = s.channels, at = query * d / 2;
    product(rows, columns, d, k.row(key), k.stride, m.q_transposed + at, false, m.scores);
    dense::probabilities(m.scores, lse + query, scale, rows, columns, m.by_row);
    product(rows, d, columns, m.by_row, columns, m.grad_pairs + at, query > 0, m.dv);
    product(rows, columns, d, v.row(key), v.stride, m.grad_transposed + at, false, m.dp);
    dense::score_gradients(m.scores, m.dp, delta + query, scale, rows, columns, m.by_row, m.by_pair);
    product(rows, d, columns, m.by_row, columns, m.q_pairs + at, query > 0, m.dk);
    product(d, columns, rows, m.k_transposed + key, s.keys, m.by_pair, key > 0, m.dq + query * d);
  }
};

bool available() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && at::native::cpublas::could_pack(at::kBFloat16);
}

at::Tensor gradient_like(const at::Tensor& t) {
  return at::empty({t.size(0), t.size(2), t.size(1), t.size(3)}, t.options()).transpose(1, 2);
}

at::Tensor with_channels_in_order(const at::Tensor& t) {
  const bool in_words = t.stride(2) % 2 == 0 && t.storage_offset() % 2 == 0 && t.stride(1) % 2 == 0 && t.stride(0) % 2 == 0;
  return t.stride(3) == 1 && in_words ? t : t.contiguous();
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(const at::Tensor& grad_in, const at::Tensor& q_in,
                                                        const at::Tensor& k_in, const at::Tensor& v_in,
                                                        const at::Tensor& lse_in, const at::Tensor& delta_in) {
  const at::Tensor grad = with_channels_in_order(grad_in), q = with_channels_in_order(q_in),
                   k = with_channels_in_order(k_in), v = with_channels_in_order(v_in);
  const at::Tensor lse = lse_in.contiguous(), delta = delta_in.contiguous();
  const at::Tensor grad_q = gradient_like(q), grad_k = gradient_like(k), grad_v = gradient_like(v);
  const int64_t heads = q.size(1);
  const Sizes s = {q.size(2), k.size(2), q.size(3), block_of(q.size(2)), block_of(k.size(2))};
  const float scale = 1 / std::sqrt(static_cast<float>(s.channels));
  at::parallel_for(0, q.size(0) * heads, 1, [&](int64_t begin, int64_t end) {
    Scratch scratch(s);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / heads, h = i % heads;
      const HeadGradient head = {s, scale, {q, n, h}, {k, n, h}, {v, n, h}, {grad, n, h}, {grad_q, n, h}, {grad_k, n, h},
                                 {grad_v, n, h}, lse.const_data_ptr<float>() + i * s.queries,
                                 delta.const_data_ptr<float>() + i * s.queries};
      head.run(scratch);
    }
    at::native::cpublas::brgemm_release();
  });
  return {grad_q, grad_k, grad_v};
}

TORCH_LIBRARY_IMPL(styleloom, CPU, m) { m.impl("attention_backward", backward); }

#else
bool available() { return false; }
#endif

TORCH_LIBRARY_FRAGMENT(styleloom, m) { m.def("has_dense_attention() -> bool", available); }

}  // namespace
}  // namespace styleloom
