"""The discriminators. Importing this package registers them."""

from training.networks.discriminators import r3gan, stylegan2, wavelet

__all__ = ["r3gan", "stylegan2", "wavelet"]
