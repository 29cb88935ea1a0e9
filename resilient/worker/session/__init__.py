"""This process's part in a run: whom it tells, where it saves, what it recovered."""
