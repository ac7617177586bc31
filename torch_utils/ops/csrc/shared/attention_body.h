// Neighbourhood attention, one query or key at a time, channels read from memory: the plain bodies. A GPU runs them
// where no faster kernel fits; tests compile them for the host too, so that the rules GPUs follow are tested on CPUs.
#pragma once

#include <math.h>

#include "attention_args.h"
#include "window.h"

namespace styleloom {
namespace SL_ISA {

// A position (y, x) of the map as member (i, j) of its dilation groups.
struct Place {
  int64_t n, head, y, x, i, j;
  Axis rows, cols;
};

// Places in memory order of [N, H, W, heads].
SL_HD Place place_at(const Window& w, int64_t index) {
  Place p;
  p.head = index % w.heads;
  index /= w.heads;
  p.x = index % w.width;
  index /= w.width;
  p.y = index % w.height;
  p.n = index / w.height;
  p.i = p.y / w.dilation_y;
  p.j = p.x / w.dilation_x;
  p.rows = axis_of_group(w.height, w.kernel_y, w.dilation_y, p.y % w.dilation_y);
  p.cols = axis_of_group(w.width, w.kernel_x, w.dilation_x, p.x % w.dilation_x);
  return p;
}

template <class T>
SL_HD T* at(const View<T>& v, const Place& p, int64_t y, int64_t x) {
  return v.data + p.n * v.n + y * v.y + x * v.x + p.head * v.head;
}

// Row or column of the map that is member i of the group of position `like`.
SL_HD int64_t position(int64_t i, int64_t like, int64_t dilation) { return i * dilation + like % dilation; }

template <class Sum>
SL_HD Sum bias_of(const Sum* rpb, const Window& w, int64_t head, int64_t dy, int64_t dx) {
  if (rpb == nullptr) return Sum(0);
  return rpb[(head * (2 * w.kernel_y - 1) + dy + w.kernel_y - 1) * (2 * w.kernel_x - 1) + dx + w.kernel_x - 1];
}

template <class Sum, class T>
SL_HD Sum dot(const T* a, const T* b, int64_t channels) {
  Sum total = 0;
  for (int64_t c = 0; c < channels; ++c) total += Sum(a[c]) * Sum(b[c]);
  return total;
}

// Calls f(key y, key x, entry of the window, score) for every neighbour of a query.
template <class T, class F>
SL_HD void for_neighbours(const AttentionArgs<T>& a, const Place& p, F&& f) {
  typedef typename AttentionArgs<T>::Sum Sum;
  const Window& w = a.window;
  const int64_t first_y = p.rows.first_key(p.i), first_x = p.cols.first_key(p.j);
  for (int64_t r = 0; r < w.kernel_y; ++r) {
    const int64_t y = position(first_y + r, p.y, w.dilation_y);
    for (int64_t c = 0; c < w.kernel_x; ++c) {
      const int64_t x = position(first_x + c, p.x, w.dilation_x);
      const Sum s = Sum(w.scale) * dot<Sum>(at(a.q, p, p.y, p.x), at(a.k, p, y, x), w.channels) +
                    bias_of(a.rpb, w, p.head, first_y + r - p.i, first_x + c - p.j);
      f(y, x, r * w.kernel_x + c, s);
    }
  }
}

// Calls f(query y, query x, score) for every query that sees a key.
template <class T, class F>
SL_HD void for_seeing(const AttentionArgs<T>& a, const Place& p, F&& f) {
  typedef typename AttentionArgs<T>::Sum Sum;
  const Window& w = a.window;
  for (int64_t i = p.rows.first_query(p.i); i <= p.rows.last_query(p.i); ++i) {
    const int64_t y = position(i, p.y, w.dilation_y);
    for (int64_t j = p.cols.first_query(p.j); j <= p.cols.last_query(p.j); ++j) {
      const int64_t x = position(j, p.x, w.dilation_x);
      const Sum s = Sum(w.scale) * dot<Sum>(at(a.q, p, y, x), at(a.k, p, p.y, p.x), w.channels) +
                    bias_of(a.rpb, w, p.head, p.i - i, p.j - j);
      f(y, x, s);
    }
  }
}

// Softmax in two passes: the log-sum-exp by an online maximum, then the weighted sum channel by channel.
template <class T>
SL_HD void forward_body(const AttentionArgs<T>& a, int64_t index) {
  typedef typename AttentionArgs<T>::Sum Sum;
  const Place p = place_at(a.window, index);
  Sum highest = Sum(-1e30), total = 0;
  for_neighbours(a, p, [&](int64_t, int64_t, int64_t, Sum s) {
    const Sum above = larger(highest, s);
    total = total * ::exp(highest - above) + ::exp(s - above);
    highest = above;
  });
  const Sum lse = highest + ::log(total);
  *at(a.lse, p, p.y, p.x) = lse;
  for (int64_t c = 0; c < a.window.channels; ++c) {
    Sum sum = 0;
    for_neighbours(a, p, [&](int64_t y, int64_t x, int64_t, Sum s) { sum += ::exp(s - lse) * Sum(at(a.v, p, y, x)[c]); });
    at(a.out, p, p.y, p.x)[c] = T(sum);
  }
}

template <class T>
SL_HD typename AttentionArgs<T>::Sum slope_of(const AttentionArgs<T>& a, const Place& p, const T* grad_out, const T* v,
                                              typename AttentionArgs<T>::Sum delta) {
  typedef typename AttentionArgs<T>::Sum Sum;
  return dot<Sum>(grad_out, v, a.window.channels) - delta;
}

template <class T>
SL_HD void backward_query_body(const AttentionArgs<T>& a, int64_t index) {
  typedef typename AttentionArgs<T>::Sum Sum;
  const Place p = place_at(a.window, index);
  const Sum lse = *at(a.lse, p, p.y, p.x), delta = *at(a.delta, p, p.y, p.x);
  const T* grad_out = at(a.grad_out, p, p.y, p.x);
  for (int64_t c = 0; c < a.window.channels; ++c) {
    Sum sum = 0;
    for_neighbours(a, p, [&](int64_t y, int64_t x, int64_t, Sum s) {
      sum += ::exp(s - lse) * slope_of(a, p, grad_out, at(a.v, p, y, x), delta) * Sum(at(a.k, p, y, x)[c]);
    });
    at(a.grad_q, p, p.y, p.x)[c] = T(Sum(a.window.scale) * sum);
  }
}

template <class T>
SL_HD void backward_key_body(const AttentionArgs<T>& a, int64_t index) {
  typedef typename AttentionArgs<T>::Sum Sum;
  const Place p = place_at(a.window, index);
  const T* v = at(a.v, p, p.y, p.x);
  for (int64_t c = 0; c < a.window.channels; ++c) {
    Sum to_key = 0, to_value = 0;
    for_seeing(a, p, [&](int64_t y, int64_t x, Sum s) {
      const T* grad_out = at(a.grad_out, p, y, x);
      const Sum probability = ::exp(s - *at(a.lse, p, y, x));
      to_key += probability * slope_of(a, p, grad_out, v, *at(a.delta, p, y, x)) * Sum(at(a.q, p, y, x)[c]);
      to_value += probability * Sum(grad_out[c]);
    });
    at(a.grad_k, p, p.y, p.x)[c] = T(Sum(a.window.scale) * to_key);
    at(a.grad_v, p, p.y, p.x)[c] = T(to_value);
  }
}

}  // namespace SL_ISA
}  // namespace styleloom
