"""Run the BIDS App with ``python -m bids_roi``."""

import sys

from bids_roi.cli import main

sys.exit(main())
