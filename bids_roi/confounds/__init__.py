"""Tables of confounds, and strategies that choose from them."""
