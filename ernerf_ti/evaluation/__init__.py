"""Evaluation of a trained portrait on frames that it was not trained on."""
