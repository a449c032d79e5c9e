"""One time series per atlas region from preprocessed BOLD runs.

Conventions that hold everywhere in the package: time is the first axis; ``T`` counts
volumes, ``V`` voxels, ``R`` regions and ``A`` atoms (groups of voxels with the same
label in every atlas); a voxel's flat index is in the order of the file (first axis
fastest); masks are boolean with ``True`` for kept; seconds, hertz, millimetres.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
