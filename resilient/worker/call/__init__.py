"""Training calls: wrapped, counted, skipped, resumed."""
