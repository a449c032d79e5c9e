"""What a BIDS dataset holds: runs, their partners and metadata."""
