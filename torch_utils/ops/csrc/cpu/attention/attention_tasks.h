// How the CPU cuts neighbourhood attention: one task is a band of rows of one dilation group of one head of one image.
// Fixed by the shapes alone, so that sums over tasks don't depend on the number of threads.
#pragma once

#include "../../shared/attention_args.h"

namespace styleloom {

// Long enough that the rows around a band, which its task reads too, are few beside its own.
static inline int64_t band_rows(const Window& w) {
  const int64_t members = (w.height + w.dilation_y - 1) / w.dilation_y;
  const int64_t count = members / (4 * w.kernel_y) > 1 ? members / (4 * w.kernel_y) : 1;
  return (members + count - 1) / count;
}

static inline int64_t bands(const Window& w) {
  const int64_t members = (w.height + w.dilation_y - 1) / w.dilation_y;
  return (members + band_rows(w) - 1) / band_rows(w);
}

static inline int64_t task_count(const Window& w) {
  return w.batch * w.heads * w.dilation_y * w.dilation_x * bands(w);
}

}  // namespace styleloom
