"""Training: the loop, one class per stage, losses, optimizer, data and log."""
