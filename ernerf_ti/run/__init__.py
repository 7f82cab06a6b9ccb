"""The run folder: its files, checkpoints, and trained portraits loaded from it."""
