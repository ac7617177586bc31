// Stacks that code can leave and come back to: the threads of a CUDA block.
#pragma once

namespace cuda_on_cpu {

// Makes sure that fibers 0 .. count - 1 exist and wait for work; work that was abandoned is forgotten.
void make_fibers(int count);

// Runs fiber `index` until it switches back or call(argument) returns; whether it has returned.
bool switch_to_fiber(int index, void (*call)(const void*), const void* argument);

// Leaves the running fiber. It goes on here when it is switched to again.
void switch_to_scheduler();

}  // namespace cuda_on_cpu
