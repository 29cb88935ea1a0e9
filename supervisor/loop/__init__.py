"""The loop, its table, and what it does on the way."""
