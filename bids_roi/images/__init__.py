"""Images: headers, NIfTI files, and their values as a stream of blocks."""
