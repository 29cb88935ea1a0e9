"""Training state: what it is, how it is captured from a network and put back. Needs MindSpore."""
