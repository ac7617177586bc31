// The element by element work of dense attention's backward pass, for processors with AVX-512 and bfloat16.
#pragma once

#include <stdint.h>

namespace styleloom {
namespace dense {

// Probabilities e^(scale * s - lse) of scores s [rows, columns], lse [columns]: in place, and as bfloat16. A row is a key,
// a column a query. columns % 16 = 0.
void probabilities(float* scores, const float* lse, float scale, int64_t rows, int64_t columns, uint16_t* p);

// Gradients p * (dp - delta) * scale of the scores [rows, columns] as bfloat16: row by row, and in pairs of rows
// [rows / 2, columns, 2]. rows % 2 = 0, columns % 16 = 0.
void score_gradients(const float* p, const float* dp, const float* delta, float scale, int64_t rows, int64_t columns,
                     uint16_t* by_row, uint32_t* by_pair);

// x [rows, columns], `stride` elements from row to row -> pairs of rows [rows / 2, columns, 2].
void pair_rows(const uint16_t* x, int64_t stride, int64_t rows, int64_t columns, uint32_t* out);

// x [rows, columns] -> its transpose in pairs of rows [columns / 2, rows, 2]. x and stride: whole 32-bit words.
void pair_transposed(const uint16_t* x, int64_t stride, int64_t rows, int64_t columns, uint32_t* out);

// x [rows, columns] -> out [columns, rows], `out_stride` elements from row to row.
void transpose(const uint16_t* x, int64_t stride, int64_t rows, int64_t columns, uint16_t* out, int64_t out_stride);

// x [rows, columns] -> bfloat16, `stride` elements from row to row; or, with `is_transposed`, x [columns, rows].
void to_bfloat16(const float* x, int64_t rows, int64_t columns, bool is_transposed, uint16_t* out, int64_t stride);

}  // namespace dense
}  // namespace styleloom
