"""Looks after a living group: does it hang, does it take too much."""
