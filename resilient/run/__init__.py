"""A run's directory: its record, its locks, where its checkpoints are, and whose word is believed."""
