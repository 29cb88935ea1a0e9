"""Imports MindSpore in half the time; a program of the tests imports this first.

The import makes objects by the hundred thousand that live as long as the process. Python's garbage
collector would walk through all of them again and again meanwhile, and once more at the end. It still
collects all that the program makes itself.
"""

import gc

gc.disable()
import mindspore  # noqa: E402, F401

gc.enable()
gc.freeze()
