"""Faults made to order, and the fakes of the operating system. Production code never imports this package."""
