"""`python -m acrf_tui.cli` is `acrf-tui`."""

import sys

from acrf_tui.cli import main

sys.exit(main())
