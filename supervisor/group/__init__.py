"""Processes of an attempt: started, told, signalled, and cleared away."""
