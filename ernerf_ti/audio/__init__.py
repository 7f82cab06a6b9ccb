"""Speech to features: what drives the mouth."""
