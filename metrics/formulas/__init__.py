"""The metrics' formulas: features in, numbers out. Nothing here knows of networks, data sets or files."""
