"""Atlases by name, from datasets and from files, and their checks."""
