"""The discriminators. Importing this package registers them."""

from training.networks.discriminators import gat, r3gan, stylegan2, wavelet

__all__ = ["gat", "r3gan", "stylegan2", "wavelet"]
