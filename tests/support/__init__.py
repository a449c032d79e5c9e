"""What several test files need: datasets, oracles, trees, calls of the app."""

from bids_roi.schedule.outcome import pin_threads

# As the app does, and here because this comes before numpy: a thread per processor
# spins where matrices are small, and sums over several of them round differently.
pin_threads()
