"""How the hypothesis tests draw their examples.

``make test`` draws the same ones each time, so that a change is what turns it red; ``make fuzz`` draws new
ones, many more of them.
"""

import os

from hypothesis import settings

settings.register_profile("steady", derandomize=True, deadline=None, max_examples=100)
settings.register_profile("fuzz", deadline=None, max_examples=3000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))
