"""Decisions from values alone: which checkpoints stay, when one is due, how often memory is copied."""
