"""Files in, files out: one outside library, one module."""
