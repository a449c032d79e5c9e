"""Tables, JSON and BIDS names: how anything is read and written."""
