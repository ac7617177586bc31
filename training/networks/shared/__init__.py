"""What networks of several families share: base classes, mapping, layers, spectral norm, units of pixels."""
