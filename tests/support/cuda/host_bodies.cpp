// The plain GPU bodies of neighbourhood attention and upfirdn2d compiled for the host, for tests/ops/test_ops_bodies.py.
#include "../../../torch_utils/ops/csrc/shared/activation.h"
#include "../../../torch_utils/ops/csrc/shared/attention_body.h"
#include "../../../torch_utils/ops/csrc/shared/resample.h"

using namespace styleloom;
using namespace styleloom::portable;

namespace {
template <class T>
View<T> dense(T* data, const Window& w, int64_t channels) {
  return View<T>{data, w.height * w.width * w.heads * channels, w.width * w.heads * channels, w.heads * channels, channels};
}
}  // namespace

// sizes: batch, height, width, heads, channels, kernel y, x, dilation y, x. Tensors are dense float64.
extern "C" void attention_bodies(const int64_t* s, double scale, const double* q, const double* k, const double* v,
                                 const double* rpb, const double* grad_out, double* out, double* lse, double* delta,
                                 double* grad_q, double* grad_k, double* grad_v) {
  AttentionArgs<double> a = {};
  a.window = Window{s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], scale};
  const Window& w = a.window;
  a.q = dense(q, w, w.channels);
  a.k = dense(k, w, w.channels);
  a.v = dense(v, w, w.channels);
  a.grad_out = dense(grad_out, w, w.channels);
  a.out = dense(out, w, w.channels);
  a.grad_q = dense(grad_q, w, w.channels);
  a.grad_k = dense(grad_k, w, w.channels);
  a.grad_v = dense(grad_v, w, w.channels);
  a.lse = dense(lse, w, 1);
  a.delta = dense(static_cast<const double*>(delta), w, 1);
  a.rpb = rpb;
  const int64_t count = w.batch * w.height * w.width * w.heads;
  for (int64_t i = 0; i < count; ++i) {
    forward_body(a, i);
    delta[i] = dot<double>(grad_out + i * w.channels, out + i * w.channels, w.channels);
  }
  for (int64_t i = 0; i < count; ++i) {
    backward_query_body(a, i);
    backward_key_body(a, i);
  }
}

// sizes: planes, height, width, out height, out width, up x, y, down x, y, pad x, y, taps x, y.
extern "C" void upfirdn_body(const int64_t* s, const double* x, const double* f, double* y) {
  const UpfirdnArgs<double, double> a = {
      {s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9], s[10], s[11], s[12]}, x, f, y};
  for (int64_t i = 0; i < s[0] * s[3] * s[4]; ++i) {
    y[i] = upfirdn_element(a, i / (s[3] * s[4]), i / s[4] % s[3], i % s[4]);
  }
}
