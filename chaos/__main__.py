"""python -m chaos: the same as ``resilient-chaos``."""

import sys

from resilient.isolated import resilient_chaos

if __name__ == "__main__":
    sys.exit(resilient_chaos())
