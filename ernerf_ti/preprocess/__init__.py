"""From a plain video to a training capture."""
