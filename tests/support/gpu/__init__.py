"""`make gpu-check`: what can only be proved on a GPU."""
