"""What metrics/evaluate.py is made of: settings, checks, one evaluation, and two networks side by side."""
