"""Bytes: how records, blocks and keys look. No disk, no policy."""
