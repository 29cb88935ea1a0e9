"""Python's own warnings: a user who asks for them (``-W``, PYTHONWARNINGS, PYTHONDEVMODE) means the script.

In our own processes nobody is to see them, and ``-W error`` must not make a deprecation of ours, or of a
library that we use, the end of a run. In a worker the user's filters hold for everything but our modules.
"""

from __future__ import annotations

import warnings


def silence() -> None:
    """For a process of ours: no warning is shown, or raised."""
    warnings.simplefilter("ignore")


def spare_ours() -> None:
    """For a process of the user's: what our modules cause is neither shown nor raised."""
    warnings.filterwarnings("ignore", module=r"(resilient|supervisor)(\.|\Z)")
