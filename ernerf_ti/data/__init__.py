"""Captures: the folders with training data."""
