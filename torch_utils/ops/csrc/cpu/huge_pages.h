// Fewer page faults for large results.
#pragma once

#include <ATen/core/Tensor.h>
#include <sys/mman.h>

namespace styleloom {

// A fresh tensor, on 2 MiB pages where the system offers them on request. malloc takes blocks of 32 MiB and more from
// the system anew each time, and the first touch of a 4 KiB page costs more than filtering what it holds.
inline at::Tensor on_huge_pages(const at::Tensor& t) {
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t kPage = 2 << 20, kLeast = 32 << 20;
  if (t.nbytes() >= kLeast) {
    const uintptr_t data = reinterpret_cast<uintptr_t>(t.mutable_data_ptr());
    const uintptr_t begin = (data + kPage - 1) / kPage * kPage, end = (data + t.nbytes()) / kPage * kPage;
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // a wish: nothing depends on its fulfilment
  }
#endif
  return t;
}

}  // namespace styleloom
