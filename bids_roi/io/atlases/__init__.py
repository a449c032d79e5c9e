"""Atlases: found, opened, checked, brought into one form."""
