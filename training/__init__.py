"""Training: configs and presets, data, networks, augmentation, losses, checkpoints, the loop."""

import sys

# `python -m training.networks` imports the packages around it before any line of its own.
if sys.argv[:1] == ["-m"] and {"training.networks", "training.sampling.demo"} & set(sys.orig_argv):
    import dnnlib.startup  # noqa: F401
