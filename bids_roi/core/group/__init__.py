"""Statistics over participants: edges in, one after the other; numpy and scipy only."""
