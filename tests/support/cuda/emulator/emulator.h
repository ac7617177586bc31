// What tests say to the emulator: in which order threads run, and what has been executed. Called through ctypes.
#pragma once

#include <stdint.h>

extern "C" {
// 0: threads and blocks in order; 1: in reverse; others: shuffled, a seed.
void cuda_on_cpu_set_order(int64_t order);
// Launches of every kernel instance of the library since it was loaded, as lines "COUNT NAME". Valid until the next call.
const char* cuda_on_cpu_launches();
// Sums since the library was loaded: launches, blocks, threads, barriers and shuffles that blocks and warps completed.
void cuda_on_cpu_counts(int64_t counts[5]);
}
