"""Disk: names, manifests, commits, recovery."""
