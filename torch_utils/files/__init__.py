"""Readers and writers of network files, none of which runs what it reads."""
