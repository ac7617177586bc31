"""The discriminators. Importing this package registers them."""

from training.networks.discriminators import stylegan2, wavelet

__all__ = ["stylegan2", "wavelet"]
