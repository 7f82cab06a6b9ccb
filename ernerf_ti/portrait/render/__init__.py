"""Pictures from fields: sampling, blending, and the layers of a portrait."""
