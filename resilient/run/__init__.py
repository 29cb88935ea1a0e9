"""A run's directory: its record, its locks, the places of its checkpoints, and which claims are trusted."""
