"""Readable PyTorch forms of every op: any device, any dtype, any order of gradient. They define what the kernels do."""
