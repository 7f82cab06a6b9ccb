"""Checkpoints of the public ER-NeRF code: read, written, and compared with what that code computes."""
