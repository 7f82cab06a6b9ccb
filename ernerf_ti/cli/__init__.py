"""Command lines: one module per command, loaded only when its command is called."""
