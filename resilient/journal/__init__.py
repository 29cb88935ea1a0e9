"""The journal's vocabulary: every event, its line in the file, and how its fields are read."""
