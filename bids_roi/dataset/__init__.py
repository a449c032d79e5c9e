"""What a BIDS dataset holds: participants, BOLD runs and what belongs to these."""
