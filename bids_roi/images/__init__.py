"""Images: NIfTI, CIFTI and GIFTI files, their values in blocks, and ITK transforms."""
