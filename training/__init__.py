"""Training: configs and presets, data, networks, augmentation, losses, checkpoints, the loop."""
