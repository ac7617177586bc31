"""What is useful with PyTorch beyond this project: ops, processes, files, statistics."""

import sys

# `python -m torch_utils.ops` imports the packages around it before any line of its own.
if sys.argv[:1] == ["-m"] and "torch_utils.ops" in sys.orig_argv:
    import dnnlib.startup  # noqa: F401
