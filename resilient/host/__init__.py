"""The one door to the operating system: files, clock and randomness behind protocols.

Production code uses the real ones; the tests use the fakes that ship in ``chaos``.
"""
