"""Readers of the field's own network files: they give plain records of our kinds, and execute nothing."""
