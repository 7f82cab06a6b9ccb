"""The capture folder."""
