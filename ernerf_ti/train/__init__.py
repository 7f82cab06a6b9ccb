"""Learning a portrait from a capture."""
