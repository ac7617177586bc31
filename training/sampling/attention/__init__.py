"""What the attention layers of a generator look at, as numbers and as pictures."""
