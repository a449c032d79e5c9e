"""One time series per atlas region from preprocessed BOLD runs.

Conventions that hold everywhere in the package: time is the first axis; ``T`` counts
volumes, ``V`` voxels, ``R`` regions and ``A`` atoms (groups of voxels with the same
label in every atlas); a voxel's flat index is in the order of the file (first axis
fastest); masks are boolean with ``True`` for kept; seconds, hertz, millimetres.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bids_roi.version import __version__

if TYPE_CHECKING:
    from bids_roi.api import extract
    from bids_roi.loading import load
    from bids_roi.masker import RegionMasker
    from bids_roi.matrices import edges_to_matrices

__all__ = ["RegionMasker", "__version__", "edges_to_matrices", "extract", "load"]

# For notebooks; found when asked for, since --help must not wait for pandas.
_HOMES = {
    "RegionMasker": "bids_roi.masker",
    "edges_to_matrices": "bids_roi.matrices",
    "extract": "bids_roi.api",
    "load": "bids_roi.loading",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - one of the names above
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    msg = f"module 'bids_roi' has no attribute '{name}'"
    raise AttributeError(msg)
