"""python -m resilient: the same as ``resilient``."""

import sys

from resilient.isolated import resilient_tools

if __name__ == "__main__":
    sys.exit(resilient_tools())
