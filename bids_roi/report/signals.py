"""Series of every region for the picker of the page: small, whatever the run."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.report.canvas import Picture, bin_peaks, bin_rows, bin_size, count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bids_roi.report.motion import Course


_POINTS, _REGIONS = 300, 1000
MISSING_CODE = 255
_STEPS = 254


def encode_signals(
    before: NDArray[np.float64],
    after: NDArray[np.float64] | None,
    names: Sequence[str],
    *,
    key: str,
    course: Course,
    unit: str = "arbitrary",
) -> Picture:
    """Put the series of every region, (T, R), into a script that the page loads.

    Pages opened from disk may load scripts but no data, hence a script: one call of
    ``bidsRoiSignals(key, data)``. Volumes that were left out are NaN in ``after``,
    which is in a ``unit`` of its own.
    """
    n_volumes, n_regions = before.shape
    shown = min(n_regions, _REGIONS)
    size = bin_size(n_volumes, _POINTS)
    data: dict[str, Any] = {
        "names": list(names[:shown]),
        "volumes": size,
        "count": n_volumes,
        "step": course.repetition_time,
        # 1 for volumes that are censored, 2 for those of no steady state.
        "out": "".join(f"{code:.0f}" for code in bin_peaks(course.left_out, _POINTS)),
        "series": [_encode("arbitrary", before[:, :shown])],
    }
    if after is not None:
        data["series"].append(_encode(unit, after[:, :shown]))
    words = (
        "Series of the region that is chosen, as extracted and as each strategy leaves"
        " it; pale orange and blue: volumes that are left out."
    )
    if size > 1:
        words += f" Each point is the mean of {size} neighbouring volumes."
    if n_regions > shown:
        words += f" The first {shown} of {n_regions} regions; the table has all."
    text = f"bidsRoiSignals({script_json(key)}, {script_json(data)});\n"
    return Picture(
        "signals",
        text.encode(),
        ".js",
        "Signals of a region",
        words,
        f"Series of {count(shown, 'region')} to choose from.",
        {"Key": key},
    )


def _encode(unit: str, values: NDArray[np.float64]) -> dict[str, Any]:
    """Each region between its lowest and highest value in 255 steps, one byte each."""
    binned = bin_rows(values, _POINTS)
    finite = np.isfinite(binned)
    low = np.where(finite, binned, np.inf).min(axis=0, initial=np.inf)
    high = np.where(finite, binned, -np.inf).max(axis=0, initial=-np.inf)
    known = np.isfinite(low)
    low, high = np.where(known, low, 0.0), np.where(known, high, 0.0)
    span = np.where(high > low, high - low, 1.0)
    codes = np.full(binned.shape, MISSING_CODE, dtype=np.uint8)
    steps = np.rint((binned - low) / span * _STEPS)
    codes[finite] = steps[finite].astype(np.uint8)
    return {
        "unit": unit,
        "low": [float(f"{v:.6g}") for v in low.tolist()],
        "high": [float(f"{v:.6g}") for v in high.tolist()],
        "points": len(binned),
        "codes": base64.b64encode(codes.T.tobytes()).decode(),
    }


def script_json(value: object) -> str:
    r"""JSON that can stand inside a script of a page.

    >>> script_json("</script>")
    '"\\u003c/script>"'
    """
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c")
