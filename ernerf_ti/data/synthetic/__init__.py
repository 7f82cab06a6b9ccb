"""A synthetic talking person with exact ground truth, for the demo and for tests."""
