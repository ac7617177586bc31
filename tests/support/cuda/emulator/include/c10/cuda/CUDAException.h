// A stand-in for torch's header of this name: the emulator throws where a launch fails.
#pragma once

#define C10_CUDA_KERNEL_LAUNCH_CHECK() \
  do {                                 \
  } while (0)
