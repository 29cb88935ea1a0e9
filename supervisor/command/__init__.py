"""From the command line to a running supervisor."""
