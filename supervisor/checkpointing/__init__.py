"""Saves, seen from the supervisor: the saver, what it is asked, and what is durable."""
