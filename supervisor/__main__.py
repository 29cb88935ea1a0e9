"""python -m supervisor: the same as ``resilient-run``."""

import sys

from resilient.isolated import resilient_run

if __name__ == "__main__":
    sys.exit(resilient_run())
