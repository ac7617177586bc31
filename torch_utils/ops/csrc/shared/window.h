// The window rule of neighbourhood attention on one axis (spec: window shifted inward, never padded) and its inverse.
#pragma once

#include "portable.h"

namespace styleloom {
namespace SL_ISA {

// One dilation group of one axis: positions group, group + dilation, ... of which there are `members`.
struct Axis {
  int64_t members;
  int64_t kernel;

  // First member of the window of member i.
  SL_MEMBER int64_t first_key(int64_t i) const {
    const int64_t start = i - kernel / 2;
    return start < 0 ? 0 : (start > members - kernel ? members - kernel : start);
  }

  // Members whose window holds member j are first_query(j) .. last_query(j): windows move monotonically, so they
  // are consecutive.
  SL_MEMBER int64_t first_query(int64_t j) const {
    const int64_t start = j - kernel + 1;
    return start <= 0 ? 0 : start + kernel / 2;
  }
  SL_MEMBER int64_t last_query(int64_t j) const { return j >= members - kernel ? members - 1 : j + kernel / 2; }
};

SL_HD Axis axis_of_group(int64_t size, int64_t kernel, int64_t dilation, int64_t group) {
  return Axis{ceil_div(size - group, dilation), kernel};
}

}  // namespace SL_ISA
}  // namespace styleloom
