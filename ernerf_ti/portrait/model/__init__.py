"""The fields of a talking portrait: what is at a point, given what is said."""
