"""Checkpoints of the public ER-NeRF code: reading, writing, and comparison with that code's results."""
