"""Where a file comes from: the consent to a portrait, the note in what is synthesized, and its signed manifest."""
