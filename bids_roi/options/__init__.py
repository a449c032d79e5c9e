"""What can be asked for: the table of options and the checked record."""
