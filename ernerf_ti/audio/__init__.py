"""Audio features, which drive the mouth."""
