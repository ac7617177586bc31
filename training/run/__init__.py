"""A run on disk: its folder, its state, its log, pictures and report."""
