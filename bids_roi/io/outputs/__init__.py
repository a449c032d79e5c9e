"""What is written: names, tables, sidecars, root files."""
