"""The generators. Importing this package registers them."""

from training.networks.generators import styleformer, styleformer_c, stylegan2, stylenat

__all__ = ["styleformer", "styleformer_c", "stylegan2", "stylenat"]
