"""A small dataset that looks and behaves like a real one."""
