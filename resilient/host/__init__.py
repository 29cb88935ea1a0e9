"""The one door to the operating system: files, clock and randomness come in through these protocols.

Production code gets the real ones; the tests get the fakes that ship in ``chaos``.
"""
