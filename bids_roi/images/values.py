"""What voxels hold that are no labels, or no mask: what it looks like, what helps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


_TOLERANCE = 1e-3
# Labels were multiplied where the steps between values are alike to this share.
_ALIKE = 0.02
_MOST_STEPS = 2**16
# Interpolation leaves the inside of regions whole, multiplying only some labels.
_MOST_WHOLE = 0.6
_NEAREST = "Resample the labels with nearest neighbour."


def are_whole(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each value is a whole number to 1e-3; not those that are not finite."""
    if values.dtype.kind in "iu":
        return np.ones(values.shape, dtype=bool)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(values - np.rint(values)) <= _TOLERANCE)


def explain_labels(
    values: NDArray[Any], *, stored_whole: bool, slope: float, intercept: float
) -> tuple[str, str]:
    """Say why an image is none of labels: the problem, and the remedy.

    ``values`` are finite, and some are no whole numbers; with ``stored_whole`` the file
    holds integers, which ``slope`` and ``intercept`` scale.
    """
    off = ~are_whole(values)
    distinct = np.unique(values[values != 0])
    examples = ", ".join(f"{v:.6g}" for v in np.unique(values[off])[:3])
    found = f"{int(off.sum())} voxels hold no whole number ({examples}, ...): "
    if stored_whole:
        return (
            f"{found}the file holds whole numbers, and scl_slope {slope:.6g} and"
            f" scl_inter {intercept:.6g} of its header make fractions of them.",
            "If the stored numbers are the labels, write them without the scaling, in"
            " Python: image = nibabel.load(FILE); nibabel.Nifti1Image("
            "image.dataobj.get_unscaled(), image.affine).to_filename(NEW). Else make"
            " the image again as int32, which holds all labels.",
        )
    if distinct[0] > 0 and distinct[-1] <= 1:
        return (
            f"{found}all values are 0 to 1: this looks like a probabilistic image, not"
            " like labels.",
            "Call it *_probseg.nii.gz to use it as the weights of one region, or make"
            " a label of it with a threshold (`fslmaths IN -thr 0.5 -bin OUT`).",
        )
    step, share = _common_step(distinct), 1 - off.sum() / (values != 0).sum()
    if step and (step > 1 or share < _MOST_WHOLE):
        return (
            f"{found}all values are whole multiples of {step:.6g}: the labels were"
            " rescaled.",
            f"Take the image as it was before; or divide by {step:.6g} and round, and"
            " compare with the table (`bids_roi_tools check-atlas`).",
        )
    return (
        f"{found}this looks like an interpolated or probabilistic image, not like"
        " labels.",
        _NEAREST,
    )


def _common_step(distinct: NDArray[Any]) -> float:
    """Number that all values are whole multiples of; 0 where there is none."""
    if distinct[0] <= 0:
        return 0.0
    step = float(np.diff(distinct, prepend=0).min())
    steps = distinct / step
    if steps[-1] > _MOST_STEPS or (np.abs(steps - np.rint(steps)) > _ALIKE).any():
        return 0.0
    # The largest value tells it to the most digits.
    return float(distinct[-1] / np.rint(steps[-1]))


def inside_mask(values: NDArray[Any], path: Path) -> NDArray[np.bool_]:
    """Whether each voxel of a mask is inside: those that are not 0; NaN is outside.

    An error where there are several values other than 0, and some are further than 1e-3
    from a whole number.
    """
    if values.dtype.kind in "iu":
        return np.asarray(values != 0)
    values = np.where(np.isnan(values), 0, values)
    whole = are_whole(values)
    if whole.all():
        return np.asarray(np.rint(values) != 0)
    if np.unique(values[values != 0]).size < 2:
        return np.asarray(values != 0)
    off = values[~whole]
    if not np.isfinite(off).all():
        msg = "the mask holds infinite values."
        raise ImageError(msg, where=path, remedy="Make the mask of 0 and 1 again.")
    low, high = float(off.min()), float(off.max())
    middle = 0.5 if high <= 1 else high / 2
    msg = (
        f"{off.size} voxels of the mask hold no whole number ({low:.4g} to {high:.4g}),"
        " as in a probability map; a mask holds 0 and one other value."
    )
    remedy = (
        f"Give it a threshold, for example {middle:.4g} (`fslmaths IN -thr"
        f" {middle:.4g} -bin OUT`), and use that."
    )
    raise ImageError(msg, where=path, remedy=remedy)


def describe_mask(values: NDArray[Any], path: Path) -> str:
    """Say what is odd about a mask that can be used; blank for most.

    Raises
    ------
    ImageError
        As for ``inside_mask``.
    """
    inside = np.unique(values[inside_mask(values, path)])
    if inside.size < 2 or np.ptp(inside) <= _TOLERANCE:
        return ""
    return (
        f"{path}: the mask holds {inside.size} values other than 0 ({inside[0]:g} to"
        f" {inside[-1]:g}); every voxel that is not 0 is inside. If it is a map in per"
        " cent, give it a threshold first."
    )
