"""The training process: a script of the user's, run as if by plain Python."""
