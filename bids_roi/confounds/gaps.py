"""Rows and gaps of a table of confounds: what must have a value, and what need not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bids_roi.errors import ConfoundsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from bids_roi.confounds.table import Confounds

    FloatArray = NDArray[np.float64]


_MAX_NAMED = 8


def check_rows(confounds: Confounds, n_volumes: int) -> None:
    """Refuse a table that has another number of rows than the series has volumes.

    Raises
    ------
    ConfoundsError
        With both numbers.
    """
    if confounds.n_volumes != n_volumes:
        msg = (
            f"the table has {confounds.n_volumes} rows, the BOLD series {n_volumes}"
            " volumes; one row per volume is needed."
        )
        remedy = "Check that the two belong together and that neither was cut."
        raise ConfoundsError(msg, where=confounds.where, remedy=remedy)


def find_empty(columns: Mapping[str, FloatArray], n_volumes: int) -> frozenset[str]:
    """Columns without a value in any volume, as fMRIPrep's csf where its mask is empty.

    A run of one volume has no derivatives; that is told as a gap.
    """
    if n_volumes < 2:
        return frozenset()
    return frozenset(k for k, v in columns.items() if not np.isfinite(v).any())


def fill_first(names: tuple[str, ...], regressors: FloatArray) -> tuple[str, ...]:
    """Give the second volume's value to the first where it has none, in place.

    Derivatives have no first value. nilearn fills it so; XCP-D takes 0.
    """
    if regressors.shape[0] < 2:
        return ()
    there = np.isfinite(regressors[:2])
    first = np.flatnonzero(~there[0] & there[1])
    regressors[0, first] = regressors[1, first]
    return tuple(names[index] for index in first)


def check_gaps(
    names: tuple[str, ...],
    regressors: FloatArray,
    kept: NDArray[np.bool_],
    where: str,
) -> None:
    """Refuse columns without a value in a kept volume; in others it has no effect."""
    gaps = ~np.isfinite(regressors) & kept[:, np.newaxis]
    bad = np.flatnonzero(gaps.any(axis=0))
    if not bad.size:
        return
    listed = [
        f"{names[i]} in volumes {_listed(np.flatnonzero(gaps[:, i]))}" for i in bad[:3]
    ]
    more = f"; and {bad.size - 3} more columns" if bad.size > 3 else ""
    msg = (
        f"columns have gaps (counted from 0): {'; '.join(listed)}{more}. Only the first"
        " volume, if the second has a value, and censored volumes may have none."
    )
    remedy = (
        "Complete the table, choose a strategy without these columns, or have these"
        " volumes censored (--dummy-scans, --censor-before, --censor-after)."
    )
    raise ConfoundsError(msg, where=where, remedy=remedy)


def _listed(volumes: Iterable[int]) -> str:
    shown = [str(volume) for volume in volumes]
    more = f" and {len(shown) - _MAX_NAMED} more" if len(shown) > _MAX_NAMED else ""
    return ", ".join(shown[:_MAX_NAMED]) + more
