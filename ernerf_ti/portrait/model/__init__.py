"""Neural fields of head and torso, and their parts."""
