"""Helpers of the tests: samples, peers, tiny runs."""
