"""Bytes: the formats of records, blocks and keys. No disk, no policy."""
