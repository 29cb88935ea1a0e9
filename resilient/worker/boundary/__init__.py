"""Step boundaries: followed, held, and made into checkpoints."""
