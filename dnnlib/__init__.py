"""Torch-free helpers: typed configs, user errors, the click shell, formatting, the download cache."""

from dnnlib.errors import ConfigError, UserError

__all__ = ["ConfigError", "UserError"]
