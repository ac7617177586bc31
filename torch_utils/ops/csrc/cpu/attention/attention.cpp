// Neighbourhood attention on the CPU. Vectors run along the keys of a window row for scores (keys packed channel by
// channel) and along channels for weighted sums. Every output element is written by one task: no atomics.

#include "attention_backward.h"
#include "attention_family.h"
#include "../kernels.h"

namespace styleloom {
namespace SL_ISA {
namespace {

template <class T>
AttentionKernels<T> kernels() {
  return {{forward<T>, ForwardTask<T>::space},
          {backward<T>, BackwardTask<T>::space},
          {qk<T>, family_space<T>},
          {av<T>, family_space<T>},
          {avt<T>, family_space<T>}};
}

}  // namespace

AttentionTable attention_table() { return {kernels<float>(), kernels<double>()}; }

}  // namespace SL_ISA
}  // namespace styleloom
