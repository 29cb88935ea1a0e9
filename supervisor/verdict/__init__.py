"""Judgments: why an attempt ended, whether another follows, and from which state."""
