"""Fault tolerance for MindSpore training."""
