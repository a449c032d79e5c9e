"""What several test files need: datasets, oracles, trees, calls of the app."""

import os
import sys

from bids_roi.schedule.outcome import pin_threads

# As the app does, and here because this comes before numpy: a thread per processor
# spins where matrices are small, and sums over several of them round differently.
pin_threads()
# Hundreds of tests start the app as a process of its own. Without its bytecode each of
# them compiles the package anew, which is a quarter of a short call.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
