// Neighbourhood attention on GPUs. Channel counts that don't fit the team kernels run the plain bodies of
// shared/attention_body.h.

#define SL_ISA gpu
#include "attention_teams.cuh"
#include "launch.h"

namespace styleloom {
namespace gpu {
namespace {

// The bias gradient of one table entry, one head of one image and one chunk of rows: every thread sums its queries in
// order, the block sums its threads in a tree.
template <class T>
struct BiasGradient : AttentionBlock {
  typedef typename AttentionArgs<T>::Sum Sum;
  AttentionArgs<T> a;

  __device__ __forceinline__ void operator()() const {
    const Window& w = a.window;
    const int64_t table_cols = 2 * w.kernel_x - 1, table = (2 * w.kernel_y - 1) * table_cols;
    const int64_t entry = blockIdx.y, chunk = blockIdx.x % kBiasChunks, image_head = blockIdx.x / kBiasChunks;
    const int64_t dy = entry / table_cols - (w.kernel_y - 1), dx = entry % table_cols - (w.kernel_x - 1);
    const int64_t rows = ceil_div(w.height, kBiasChunks), first_row = chunk * rows;
    const int64_t last = smaller(first_row + rows, w.height) * w.width;
    Sum total = 0;
    for (int64_t flat = first_row * w.width + threadIdx.x; flat < last; flat += kBlock) {
      const Place p = place_at(w, ((image_head / w.heads) * w.height * w.width + flat) * w.heads + image_head % w.heads);
      const int64_t r = p.i + dy - p.rows.first_key(p.i), c = p.j + dx - p.cols.first_key(p.j);
      if (r < 0 || r >= w.kernel_y || c < 0 || c >= w.kernel_x) continue;
      const int64_t y = position(p.i + dy, p.y, w.dilation_y), x = position(p.j + dx, p.x, w.dilation_x);
      const Sum s = Sum(w.scale) * dot<Sum>(at(a.q, p, p.y, p.x), at(a.k, p, y, x), w.channels) +
                    bias_of(a.rpb, w, p.head, dy, dx);
      const Sum slope = slope_of(a, p, at(a.grad_out, p, p.y, p.x), at(a.v, p, y, x), *at(a.delta, p, p.y, p.x));
      total += ::exp(s - *at(a.lse, p, p.y, p.x)) * slope;
    }
    __shared__ Sum sums[kBlock];
    sums[threadIdx.x] = total;
    for (int half = kBlock / 2; half > 0; half /= 2) {
      __syncthreads();
      if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0) a.grad_rpb[(image_head * kBiasChunks + chunk) * table + entry] = sums[0];
  }
};

enum Pass { kForward, kBackwardQuery, kBackwardKey };

template <class T, Pass pass>
struct Plain : AttentionBlock {
  AttentionArgs<T> a;
  int64_t count;

  __device__ __forceinline__ void operator()() const {
    const int64_t index = thread();
    if (index >= count) return;
    if (pass == kForward) forward_body(a, index);
    if (pass == kBackwardQuery) backward_query_body(a, index);
    if (pass == kBackwardKey) backward_key_body(a, index);
  }
};

// One thread per score.
template <class T>
struct QkScores : AttentionBlock {
  typedef typename AttentionArgs<T>::Sum Sum;
  AttentionArgs<T> a;
  int64_t count;

  __device__ __forceinline__ void operator()() const {
    const int64_t index = thread();
    if (index >= count) return;
    const Window& w = a.window;
    const int64_t entries = w.kernel_y * w.kernel_x, entry = index % entries;
    const Place p = place_at(w, index / entries);
    const int64_t y = position(p.rows.first_key(p.i) + entry / w.kernel_x, p.y, w.dilation_y);
    const int64_t x = position(p.cols.first_key(p.j) + entry % w.kernel_x, p.x, w.dilation_x);
    at(a.scores, p, p.y, p.x)[entry] = T(dot<Sum>(at(a.q, p, p.y, p.x), at(a.k, p, y, x), w.channels));
  }
};

// One thread per output channel; transposed: over the queries that see the position.
template <class T, bool transposed>
struct WeightedSums : AttentionBlock {
  typedef typename AttentionArgs<T>::Sum Sum;
  AttentionArgs<T> a;
  int64_t count;

  __device__ __forceinline__ void operator()() const {
    const int64_t index = thread();
    if (index >= count) return;
    const Window& w = a.window;
    const int64_t channel = index % w.channels;
    const Place p = place_at(w, index / w.channels);
    const int64_t top = transposed ? p.rows.first_query(p.i) : p.rows.first_key(p.i);
    const int64_t left = transposed ? p.cols.first_query(p.j) : p.cols.first_key(p.j);
    const int64_t bottom = transposed ? p.rows.last_query(p.i) : top + w.kernel_y - 1;
    const int64_t right = transposed ? p.cols.last_query(p.j) : left + w.kernel_x - 1;
    Sum total = 0;
    for (int64_t i = top; i <= bottom; ++i) {
      const int64_t y = position(i, p.y, w.dilation_y);
      for (int64_t j = left; j <= right; ++j) {
        const int64_t x = position(j, p.x, w.dilation_x);
        const T* weights = transposed ? at(a.weights, p, y, x) : at(a.weights, p, p.y, p.x);
        const int64_t r = transposed ? p.i - p.rows.first_key(i) : i - top;
        const int64_t c = transposed ? p.j - p.cols.first_key(j) : j - left;
        total += Sum(weights[r * w.kernel_x + c]) * Sum(at(a.v, p, y, x)[channel]);
      }
    }
    at(a.out, p, p.y, p.x)[channel] = T(total);
  }
};

unsigned blocks_for(int64_t threads) { return unsigned(ceil_div(threads, AttentionBlock::kBlock)); }

template <class T>
bool aligned(const View<T>& v) {
  const int64_t strides = v.n | v.y | v.x | v.head;
  return reinterpret_cast<uintptr_t>(v.data) % 16 == 0 && strides * int64_t(sizeof(T)) % 16 == 0;
}

// Threads per query for the fast kernels, or 0 where only the plain body fits.
template <class T>
int team_of(const AttentionArgs<T>& a) {
  const int64_t lanes = a.window.channels / kFullPack<T>;
  const bool fits = lanes * kFullPack<T> == a.window.channels && lanes >= 1 && lanes <= 32 && (lanes & (lanes - 1)) == 0;
  return fits && aligned(a.q) && aligned(a.k) && aligned(a.v) && aligned(a.grad_out) ? int(lanes) : 0;
}

template <class T, int LANES, Pass pass>
void launch_teams(const AttentionArgs<T>& a, void* stream) {
  const unsigned blocks = blocks_for(walk_length(a.window) * LANES);
  if constexpr (pass == kForward) launch(ForwardTeams<T, LANES>{{}, a}, blocks, stream);
  if constexpr (pass == kBackwardQuery) launch(BackwardQueryTeams<T, LANES>{{}, a}, blocks, stream);
  if constexpr (pass == kBackwardKey) launch(BackwardKeyTeams<T, LANES>{{}, a}, blocks, stream);
}

int64_t positions(const Window& w) { return w.batch * w.height * w.width * w.heads; }

template <class T, Pass pass>
void launch_pass(const AttentionArgs<T>& a, void* stream) {
  switch (team_of(a)) {
    case 1: return launch_teams<T, 1, pass>(a, stream);
    case 2: return launch_teams<T, 2, pass>(a, stream);
    case 4: return launch_teams<T, 4, pass>(a, stream);
    case 8: return launch_teams<T, 8, pass>(a, stream);
    case 16: return launch_teams<T, 16, pass>(a, stream);
    case 32: return launch_teams<T, 32, pass>(a, stream);
  }
  const int64_t count = positions(a.window);
  launch(Plain<T, pass>{{}, a, count}, blocks_for(count), stream);
}

}  // namespace
}  // namespace gpu

using namespace gpu;

template <class T>
void launch_na2d_forward(const AttentionArgs<T>& a, void* stream) {
  launch_pass<T, kForward>(a, stream);
}

template <class T>
void launch_na2d_backward(const AttentionArgs<T>& a, void* stream) {
  launch_pass<T, kBackwardQuery>(a, stream);
  launch_pass<T, kBackwardKey>(a, stream);
  if (a.grad_rpb == nullptr) return;
  const Window& w = a.window;
  // A grid may be 2^31 blocks long but only 65535 high, and a batch has more chunks than a table has entries.
  const dim3 grid(unsigned(w.batch * w.heads * kBiasChunks), unsigned((2 * w.kernel_y - 1) * (2 * w.kernel_x - 1)));
  launch(BiasGradient<T>{{}, a}, grid, stream);
}

template <class T>
void launch_na2d_qk(const AttentionArgs<T>& a, void* stream) {
  const int64_t count = positions(a.window) * a.window.kernel_y * a.window.kernel_x;
  launch(QkScores<T>{{}, a, count}, blocks_for(count), stream);
}

template <class T>
void launch_na2d_av(const AttentionArgs<T>& a, void* stream) {
  const int64_t count = positions(a.window) * a.window.channels;
  launch(WeightedSums<T, false>{{}, a, count}, blocks_for(count), stream);
}

template <class T>
void launch_na2d_avt(const AttentionArgs<T>& a, void* stream) {
  const int64_t count = positions(a.window) * a.window.channels;
  launch(WeightedSums<T, true>{{}, a, count}, blocks_for(count), stream);
}

#define SL_INSTANTIATE(T)                                                        \
  template void launch_na2d_forward<T>(const AttentionArgs<T>&, void*);          \
  template void launch_na2d_backward<T>(const AttentionArgs<T>&, void*);         \
  template void launch_na2d_qk<T>(const AttentionArgs<T>&, void*);               \
  template void launch_na2d_av<T>(const AttentionArgs<T>&, void*);               \
  template void launch_na2d_avt<T>(const AttentionArgs<T>&, void*);
SL_INSTANTIATE(float)
SL_INSTANTIATE(double)
SL_INSTANTIATE(HalfBits)
SL_INSTANTIATE(BFloat16Bits)

}  // namespace styleloom
