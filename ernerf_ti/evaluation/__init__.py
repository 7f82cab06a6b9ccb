"""How good a portrait is, on frames that it was not trained on."""
