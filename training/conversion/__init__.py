"""Making data sets: sources, robust decoding, transforms, the parallel converter, inspection. Needs no torch."""
