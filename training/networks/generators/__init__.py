"""The generators. Importing this package registers them."""

from training.networks.generators import r3gan, styleformer, styleformer_c, stylegan2, stylenat

__all__ = ["r3gan", "styleformer", "styleformer_c", "stylegan2", "stylenat"]
