"""python -m resilient.tools: the same as ``resilient``."""

import sys

from resilient.tools import main

sys.exit(main())
