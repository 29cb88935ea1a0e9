"""Pure decisions: which checkpoints stay, when one is due, how often the mirror copies the state."""
