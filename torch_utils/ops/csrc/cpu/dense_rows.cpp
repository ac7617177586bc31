#include "dense_rows.h"

#include "bfloat16.h"

namespace styleloom {
namespace dense {
namespace {

using namespace SL_ISA;
typedef Vec<float> V;
constexpr int64_t kLanes = lanes<float>();

}  // namespace

void probabilities(float* scores, const float* lse, float scale, int64_t rows, int64_t columns, uint16_t* p) {
  for (int64_t row = 0; row < rows; ++row) {
    float* s = scores + row * columns;
    for (int64_t i = 0; i < columns; i += kLanes) {
      const V value = SL_ISA::exp(load(s + i) * scale - load(lse + i));
      store(s + i, value);
      store_halves(p + row * columns + i, rounded(value));
    }
  }
}

void score_gradients(const float* p, const float* dp, const float* delta, float scale, int64_t rows, int64_t columns,
                     uint16_t* by_row, uint32_t* by_pair) {
  for (int64_t row = 0; row < rows; row += 2) {
    for (int64_t i = 0; i < columns; i += kLanes) {
      VecOfBits words[2];
      for (int64_t k = 0; k < 2; ++k) {
        const int64_t at = (row + k) * columns + i;
        words[k] = rounded(load(p + at) * (load(dp + at) - load(delta + i)) * scale);
        store_halves(by_row + at, words[k]);
      }
      const VecOfBits pair = words[0] | words[1] << 16;
      __builtin_memcpy(by_pair + row / 2 * columns + i, &pair, sizeof(pair));
    }
  }
}

void pair_rows(const uint16_t* x, int64_t stride, int64_t rows, int64_t columns, uint32_t* out) {
  for (int64_t row = 0; row < rows; row += 2) {
    const uint16_t *low = x + row * stride, *high = low + stride;
    for (int64_t i = 0; i < columns; ++i) out[row / 2 * columns + i] = low[i] | uint32_t(high[i]) << 16;
  }
}

void pair_transposed(const uint16_t* x, int64_t stride, int64_t rows, int64_t columns, uint32_t* out) {
  for (int64_t pair = 0; pair < columns / 2; ++pair) {
    for (int64_t row = 0; row < rows; ++row) {
      __builtin_memcpy(out + pair * rows + row, x + row * stride + 2 * pair, sizeof(uint32_t));
    }
  }
}

void transpose(const uint16_t* x, int64_t stride, int64_t rows, int64_t columns, uint16_t* out, int64_t out_stride) {
  for (int64_t column = 0; column < columns; ++column) {
    for (int64_t row = 0; row < rows; ++row) out[column * out_stride + row] = x[row * stride + column];
  }
}

void to_bfloat16(const float* x, int64_t rows, int64_t columns, bool is_transposed, uint16_t* out, int64_t stride) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      const float value = is_transposed ? x[column * rows + row] : x[row * columns + column];
      out[row * stride + column] = narrow<BFloat16Bits>(value).bits;
    }
  }
}

}  // namespace dense
}  // namespace styleloom
