"""upfirdn2d: filtered resampling."""

from torch_utils.ops.upfirdn2d.public import downsample2d, filter2d, filter_size, setup_filter, upfirdn2d, upsample2d

__all__ = ["downsample2d", "filter2d", "filter_size", "setup_filter", "upfirdn2d", "upsample2d"]
