"""Python's own warnings: a user who enables them (``-W``, PYTHONWARNINGS, PYTHONDEVMODE) means the script.

Our own processes hide them, and ``-W error`` must not end a run because of a deprecation in our code or in a
library that we use. In a worker, the user's filters apply to everything except our modules.
"""

from __future__ import annotations

import warnings


def silence() -> None:
    """In our own process: shows and raises no warning."""
    warnings.simplefilter("ignore")


def spare_ours() -> None:
    """In the user's process: neither shows nor raises warnings from our modules."""
    warnings.filterwarnings("ignore", module=r"(resilient|supervisor)(\.|\Z)")
