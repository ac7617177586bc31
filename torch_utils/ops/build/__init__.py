"""Building and loading the compiled kernels."""
