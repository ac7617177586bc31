"""The CUDA kernels of this project, executed on the CPU in CUDA's execution model."""
