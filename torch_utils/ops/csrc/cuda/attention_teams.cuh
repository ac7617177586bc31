// The team kernels of neighbourhood attention.
//
// They give each query (or key) a team of LANES neighbouring threads; each thread owns 16 bytes of the channels, so a
// team reads a key in one coalesced request, and the teams of a warp are neighbours in a dilation group, whose windows
// overlap in L1. Scores are summed over the team by shuffles. Nothing is written twice: no atomics.
#pragma once

#include "../shared/attention_body.h"
#include "packs.cuh"

namespace styleloom {
namespace gpu {
namespace {

// How every attention body is launched.
struct AttentionBlock {
  static constexpr int kBlock = 128;
  static constexpr int kBlocksPerMultiprocessor = 4;  // of 65536 registers: up to 128 for each thread, and no spills

  // Of this thread in the whole grid.
  __device__ __forceinline__ static int64_t thread() { return blockIdx.x * int64_t(kBlock) + threadIdx.x; }
};

// 16 bytes of channels, as sums.
template <class T>
struct Slice {
  typedef typename AccumulateIn<T>::type Sum;
  Sum value[kFullPack<T>];

  __device__ __forceinline__ static Slice load(const T* p) {
    const auto pack = Pack<T, kFullPack<T>>::load(p);
    Slice s;
#pragma unroll
    for (int i = 0; i < kFullPack<T>; ++i) s.value[i] = Sum(pack.part[i]);
    return s;
  }

  __device__ __forceinline__ void store(T* p, Sum scale) const {
    Pack<T, kFullPack<T>> pack;
#pragma unroll
    for (int i = 0; i < kFullPack<T>; ++i) pack.part[i] = T(scale * value[i]);
    pack.store(p);
  }

  __device__ __forceinline__ Sum dot(const Slice& other) const {
    Sum total = 0;
#pragma unroll
    for (int i = 0; i < kFullPack<T>; ++i) total += value[i] * other.value[i];
    return total;
  }

  __device__ __forceinline__ void scale_add(Sum keep, Sum weight, const Slice& other) {
#pragma unroll
    for (int i = 0; i < kFullPack<T>; ++i) value[i] = value[i] * keep + weight * other.value[i];
  }
};

template <int LANES, class Sum>
__device__ __forceinline__ Sum team_sum(Sum x) {
#pragma unroll
  for (int step = LANES / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

// Teams walk along x inside one dilation group, then through the groups, rows, heads and images.
struct Walk {
  Place p;
  bool valid;
};

__device__ __forceinline__ Walk walk_at(const Window& w, int64_t index) {
  const int64_t longest = ceil_div(w.width, w.dilation_x);
  const int64_t j = index % longest;
  index /= longest;
  const int64_t group = index % w.dilation_x;
  index /= w.dilation_x;
  const int64_t y = index % w.height;
  index /= w.height;
  const int64_t head = index % w.heads, n = index / w.heads, x = group + j * w.dilation_x;
  Walk walk;
  walk.valid = n < w.batch && x < w.width;
  walk.p = place_at(w, ((smaller(n, w.batch - 1) * w.height + y) * w.width + smaller(x, w.width - 1)) * w.heads + head);
  return walk;
}

int64_t walk_length(const Window& w) {
  return w.batch * w.heads * w.height * w.dilation_x * ceil_div(w.width, w.dilation_x);
}

// The position of a team, and what its threads do together.
template <class T, int LANES>
struct Team {
  typedef typename AttentionArgs<T>::Sum Sum;
  const AttentionArgs<T>& a;
  const int channel;  // first of this thread
  const Walk walk;

  __device__ __forceinline__ explicit Team(const AttentionArgs<T>& args)
      : a(args), channel(threadIdx.x % LANES * kFullPack<T>),
        walk(walk_at(args.window, AttentionBlock::thread() / LANES)) {}

  __device__ __forceinline__ Slice<T> load(const View<const T>& view, int64_t y, int64_t x) const {
    return Slice<T>::load(at(view, walk.p, y, x) + channel);
  }
  __device__ __forceinline__ Slice<T> load_own(const View<const T>& view) const {
    return load(view, walk.p.y, walk.p.x);
  }
  __device__ __forceinline__ void store_own(const View<T>& view, const Slice<T>& slice, Sum scale) const {
    slice.store(at(view, walk.p, walk.p.y, walk.p.x) + channel, scale);
  }
  __device__ __forceinline__ Sum score(const Slice<T>& q, const Slice<T>& k, int64_t dy, int64_t dx) const {
    return Sum(a.window.scale) * team_sum<LANES>(q.dot(k)) + bias_of(a.rpb, a.window, walk.p.head, dy, dx);
  }

  // Calls f(score, key, value) for every key that query q sees.
  template <class F>
  __device__ __forceinline__ void for_keys(const Slice<T>& q, F&& f) const {
    const Window& w = a.window;
    const Place& p = walk.p;
    const int64_t first_y = p.rows.first_key(p.i), first_x = p.cols.first_key(p.j);
    for (int64_t r = 0; r < w.kernel_y; ++r) {
      const int64_t y = position(first_y + r, p.y, w.dilation_y);
      for (int64_t c = 0; c < w.kernel_x; ++c) {
        const int64_t x = position(first_x + c, p.x, w.dilation_x);
        const Slice<T> k = load(a.k, y, x), v = load(a.v, y, x);
        f(score(q, k, first_y + r - p.i, first_x + c - p.j), k, v);
      }
    }
  }
};

template <class T, int LANES>
struct ForwardTeams : AttentionBlock {
  typedef typename AttentionArgs<T>::Sum Sum;
  AttentionArgs<T> a;

  __device__ __forceinline__ void operator()() const {
    const Team<T, LANES> team(a);
    Slice<T> out = {};
    Sum highest = Sum(-1e30), total = 0;
    team.for_keys(team.load_own(a.q), [&](Sum s, const Slice<T>&, const Slice<T>& v) {
      const Sum above = larger(highest, s), keep = ::exp(highest - above), weight = ::exp(s - above);
      out.scale_add(keep, weight, v);
      total = total * keep + weight;
      highest = above;
    });
    if (!team.walk.valid) return;
    team.store_own(a.out, out, Sum(1) / total);
    const Place& p = team.walk.p;
    if (team.channel == 0) *at(a.lse, p, p.y, p.x) = highest + ::log(total);
  }
};

template <class T, int LANES>
struct BackwardQueryTeams : AttentionBlock {
  typedef typename AttentionArgs<T>::Sum Sum;
  AttentionArgs<T> a;

  __device__ __forceinline__ void operator()() const {
    const Team<T, LANES> team(a);
    const Place& p = team.walk.p;
    const Slice<T> g = team.load_own(a.grad_out);
    const Sum lse = *at(a.lse, p, p.y, p.x), delta = *at(a.delta, p, p.y, p.x);
    Slice<T> grad = {};
    team.for_keys(team.load_own(a.q), [&](Sum s, const Slice<T>& k, const Slice<T>& v) {
      const Sum slope = team_sum<LANES>(g.dot(v)) - delta;
      grad.scale_add(Sum(1), ::exp(s - lse) * slope, k);
    });
    if (team.walk.valid) team.store_own(a.grad_q, grad, Sum(a.window.scale));
  }
};

// Gather over the inverse neighbourhood: the queries that see this key.
template <class T, int LANES>
struct BackwardKeyTeams : AttentionBlock {
  typedef typename AttentionArgs<T>::Sum Sum;
  AttentionArgs<T> a;

  __device__ __forceinline__ void operator()() const {
    const Window& w = a.window;
    const Team<T, LANES> team(a);
    const Place& p = team.walk.p;
    const Slice<T> k = team.load_own(a.k), v = team.load_own(a.v);
    Slice<T> grad_k = {}, grad_v = {};
    // The teams of a warp may be seen by different numbers of queries, but shuffle together: all walk the longest range.
    const int64_t most_y = w.kernel_y + 2 * (w.kernel_y / 2), most_x = w.kernel_x + 2 * (w.kernel_x / 2);
    const int64_t top = p.rows.first_query(p.i), left = p.cols.first_query(p.j);
    for (int64_t r = 0; r < most_y; ++r) {
      const int64_t i = smaller(top + r, p.rows.last_query(p.i)), y = position(i, p.y, w.dilation_y);
      for (int64_t c = 0; c < most_x; ++c) {
        const int64_t j = smaller(left + c, p.cols.last_query(p.j)), x = position(j, p.x, w.dilation_x);
        const bool seen = top + r == i && left + c == j;
        const Slice<T> q = team.load(a.q, y, x), g = team.load(a.grad_out, y, x);
        const Sum s = team.score(q, k, p.i - i, p.j - j);
        const Sum slope = team_sum<LANES>(g.dot(v)) - *at(a.delta, p, y, x);
        const Sum probability = seen ? ::exp(s - *at(a.lse, p, y, x)) : Sum(0);
        grad_k.scale_add(Sum(1), probability * slope, q);
        grad_v.scale_add(Sum(1), probability, g);
      }
    }
    if (!team.walk.valid) return;
    team.store_own(a.grad_k, grad_k, Sum(w.scale));
    team.store_own(a.grad_v, grad_v, Sum(1));
  }
};

}  // namespace
}  // namespace gpu
}  // namespace styleloom
