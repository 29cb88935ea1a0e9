"""The training process itself: its signals, its stacks, its memory shared with the supervisor."""
