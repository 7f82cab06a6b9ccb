"""Talking portraits: a radiance field of a speaker's head and torso, driven by speech."""

__version__ = "0.1.0"
"""Version of the distribution, which pyproject.toml reads from here."""
