"""The generators. Importing this package registers them."""

from training.networks.generators import gat, r3gan, styleformer, styleformer_c, stylegan2, stylenat

__all__ = ["gat", "r3gan", "styleformer", "styleformer_c", "stylegan2", "stylenat"]
