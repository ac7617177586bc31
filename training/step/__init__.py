"""One training step: phases, precision, compilation, the feed of real images, health, signals, clock."""
