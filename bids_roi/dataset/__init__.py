"""What a BIDS dataset holds: roots, layout, filters, metadata."""
