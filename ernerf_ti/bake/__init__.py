"""Baked portraits: a head of which most is stored, and only what speech and blinks move is evaluated."""
