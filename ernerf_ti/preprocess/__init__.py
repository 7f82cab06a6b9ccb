"""Preprocessing: from a video of a speaker to a training capture."""
