"""Talking portraits: a radiance field of a speaker's head and torso, driven by speech."""
